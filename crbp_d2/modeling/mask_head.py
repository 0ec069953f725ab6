"""The recurrent mask head.

N: RoIs of the batch; C: channels; S: side of an RoI's features; K: classes.
"""

from detectron2.config import CfgNode
from detectron2.layers import Conv2d, ConvTranspose2d, ShapeSpec, get_norm
from detectron2.modeling.roi_heads.mask_head import (
    ROI_MASK_HEAD_REGISTRY,
    BaseMaskRCNNHead,
    mask_rcnn_inference,
    mask_rcnn_loss,
)
from detectron2.structures import Instances
from fvcore.nn import weight_init
from torch import Tensor, nn
from torch.nn import functional as F

from crbp_d2.layers.tensors import preferred_layout
from crbp_d2.recurrence import Recurrence, RecurrenceOutput
from crbp_d2.utils.errors import check_whole

from .build import build_recurrence, keyed, panoptic_head_settings
from .heads import RecurrentHead, check_readout_norm, log_solve


@ROI_MASK_HEAD_REGISTRY.register()
class RecurrentMaskHead(RecurrentHead, BaseMaskRCNNHead):
    """A recurrence in place of the convolutions of the Mask R-CNN head (Linsley et al. 2020, section 3.3).

    RoI features drive the recurrence; its last state is read out by norm, 2x deconvolution, relu and
    a 1x1 predictor (of a cell with several tensors the first). In training the losses are `loss_mask` and
    `loss_lipschitz`, whatever the rule; loss_mask is over all states that the recurrence has read out.

    Args:
        input_shape: channels of the RoI features; other channels than the cell's are projected by a 1x1 convolution.
        recurrence: its cell has an attribute `channels`.
        num_classes: K; 1 for class-agnostic masks.
        conv_dim: channels of the deconvolution.
        readout_norm: "", "BN", "SyncBN" or "GN", as in detectron2.
        penalty_weight: factor of the recurrence's penalty in `loss_lipschitz`.
        test_steps: cell evaluations in inference; None: as many as in training.
        kwargs: loss_weight and vis_period of BaseMaskRCNNHead.

    Raises:
        SettingError: values outside these.
        ContradictionError: a weight of 0 for a penalty that the recurrence has; "GN" of channels that it cannot group.
    """

    @keyed
    def __init__(
        self,
        input_shape: ShapeSpec,
        *,
        recurrence: Recurrence,
        num_classes: int,
        conv_dim: int = 256,
        readout_norm: str = "BN",
        penalty_weight: float = 0.001,
        test_steps: int | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        channels = recurrence.cell.channels
        check_readout_norm(self, readout_norm, channels)
        check_whole("RecurrentMaskHead", num_classes=num_classes, conv_dim=conv_dim)
        same = input_shape.channels == channels
        self.projection = nn.Identity() if same else Conv2d(input_shape.channels, channels, kernel_size=1)
        self.set_recurrence(recurrence, penalty_weight, test_steps)
        self.norm = get_norm(readout_norm, channels) or nn.Identity()
        self.deconv = ConvTranspose2d(channels, conv_dim, kernel_size=2, stride=2)
        self.predictor = Conv2d(conv_dim, num_classes, kernel_size=1)
        for layer in (self.projection, self.deconv):
            if not isinstance(layer, nn.Identity):
                weight_init.c2_msra_fill(layer)
        # Masks start near probability 0.5, as in detectron2's own head.
        nn.init.normal_(self.predictor.weight, std=0.001)
        nn.init.zeros_(self.predictor.bias)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict:
        head = cfg.MODEL.ROI_MASK_HEAD
        return {
            **super().from_config(cfg, input_shape),
            **panoptic_head_settings(cfg),
            "input_shape": input_shape,
            "recurrence": build_recurrence(cfg, head.CONV_DIM),
            "num_classes": 1 if head.CLS_AGNOSTIC_MASK else cfg.MODEL.ROI_HEADS.NUM_CLASSES,
            "conv_dim": head.CONV_DIM,
        }

    def forward(self, x: Tensor, instances: list[Instances]) -> dict[str, Tensor] | list[Instances]:
        """x: N x C x S x S. Losses in training, else the instances with `pred_masks`; see BaseMaskRCNNHead."""
        if not self.training:
            mask_rcnn_inference(self.layers(x), instances)
            return instances
        output = self.run(x)
        log_solve(output)
        loss = output.loss(lambda h: mask_rcnn_loss(self.read_out(h), instances, self.vis_period))
        return {
            "loss_mask": loss * self.loss_weight,
            "loss_lipschitz": self.weighted_penalty(output),
        }

    def layers(self, x: Tensor) -> Tensor:
        """Mask logits, N x K x 2S x 2S, of RoI features x, N x C x S x S."""
        return self.read_out(self.run(x).state[0])

    def read_out(self, state: Tensor) -> Tensor:
        """Mask logits, N x K x 2S x 2S, of a recurrent state, N x C x S x S."""
        return self.predictor(F.relu(self.deconv(self._normalize(state))))

    def run(self, x: Tensor) -> RecurrenceOutput:
        """The recurrence on RoI features x, N x C x S x S; in inference `test_steps` steps."""
        drive = self.projection(x)
        layout = preferred_layout(drive.shape[1], drive.device.type)
        return self.solve(drive.contiguous(memory_format=layout))

    def _normalize(self, state: Tensor) -> Tensor:
        norm = self.norm
        if self.training and len(state) == 0 and isinstance(norm, nn.BatchNorm2d):
            # The statistics of nothing are NaN and would enter the running averages.
            return F.batch_norm(state, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
        return norm(state)
