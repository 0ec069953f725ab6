"""The heads of the Pathfinder networks.

N: batch; C: channels; H x W: image size.
"""

import math
from abc import ABC, abstractmethod

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from fvcore.nn import sigmoid_focal_loss
from torch import Tensor, nn

from crbp_d2.cells import FeedforwardControl
from crbp_d2.layers.convolution import HorizontalConv2d
from crbp_d2.layers.norms import NORMS, build_norm
from crbp_d2.recurrence import Recurrence
from crbp_d2.utils.errors import ContradictionError, SettingError, check_choice, check_number

from .build import arguments, build_feedforward, build_recurrence, head_settings, keyed
from .heads import RecurrentHead, log_solve

CLASSES = ("background", "target")


class ContourReadout(nn.Module, ABC):
    """Norm, 1x1 convolution to two classes and focal loss, on states that a subclass computes.

    The norm keeps no running averages, so that it reads the states of every step alike (Linsley et al. 2020,
    suppl. 3.1). In training the result is (None, losses), else (logits, {}), as detectron2 expects of a head.

    Args:
        channels: C of what is read out.
        readout_norm: name for `build_norm`.
        focal_gamma: exponent gamma of the focal loss.
        prior_prob: probability of the target that predictions start with.
        loss_weight: factor of the focal loss.
        ignore_value: label of pixels without a loss.

    Raises:
        SettingError: an unknown norm, prior_prob outside (0, 1), a negative or infinite gamma or weight.
    """

    def __init__(
        self,
        channels: int,
        *,
        readout_norm: str = "BN",
        focal_gamma: float = 2.0,
        prior_prob: float = 0.01,
        loss_weight: float = 1.0,
        ignore_value: int = 255,
    ):
        super().__init__()
        owner = type(self).__name__
        check_choice(owner, NORMS, readout_norm=readout_norm)
        check_number(owner, "(0, 1)", prior_prob=prior_prob)
        check_number(owner, "[0, inf)", focal_gamma=focal_gamma, loss_weight=loss_weight)
        self.norm = build_norm(readout_norm, channels, scale=1.0)
        self.predictor = HorizontalConv2d(channels, len(CLASSES), 1, bias=True)
        nn.init.normal_(self.predictor.weight, std=0.01)
        with torch.no_grad():
            self.predictor.bias.copy_(torch.tensor([math.log(1 - prior_prob), math.log(prior_prob)]))
        self.focal_gamma = focal_gamma
        self.loss_weight = loss_weight
        self.ignore_value = ignore_value

    @staticmethod
    def settings(cfg: CfgNode) -> dict:
        """Settings that every head takes from a config.

        Raises:
            SettingError: classes or features that are not those of a contour head.
        """
        head = cfg.MODEL.SEM_SEG_HEAD
        if len(CLASSES) != head.NUM_CLASSES:
            raise SettingError("MODEL.SEM_SEG_HEAD.NUM_CLASSES", head.NUM_CLASSES, f"2 for {head.NAME}: {CLASSES}")
        if list(head.IN_FEATURES) != ["stem"]:
            raise SettingError("MODEL.SEM_SEG_HEAD.IN_FEATURES", head.IN_FEATURES, f"['stem'] for {head.NAME}")
        return {
            **arguments(cfg, "readout_norm", "focal_gamma", "prior_prob"),
            "loss_weight": head.LOSS_WEIGHT,
            "ignore_value": head.IGNORE_VALUE,
        }

    def forward(
        self, features: dict[str, Tensor], targets: Tensor | None = None
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """features: {"stem": N x C x H x W}; targets: N x H x W, 1 on the target contour, needed in training."""
        drive = features["stem"]
        if not self.training:
            return self.infer(drive), {}
        if targets is None:
            raise ValueError(f"{type(self).__name__}: training needs the inputs' 'sem_seg', which has none")
        return None, self.losses(drive, targets)

    @abstractmethod
    def infer(self, drive: Tensor) -> Tensor:
        """Logits, N x 2 x H x W."""

    @abstractmethod
    def losses(self, drive: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """All losses by name."""

    def read_out(self, state: Tensor) -> Tensor:
        """Logits, N x 2 x H x W, of a state, N x C x H x W."""
        return self.predictor(self.norm(state))

    def focal_loss(self, state: Tensor, targets: Tensor) -> Tensor:
        """Mean over pixels of the focal loss, a softmax over two classes being a sigmoid of their difference.

        Raises:
            ValueError: targets of another size than the state.
        """
        logits = self.read_out(state)
        if targets.shape != logits.shape[:1] + logits.shape[2:]:
            raise ValueError(f"targets are {tuple(targets.shape)}, but the predictions {tuple(logits.shape)}")
        known = targets != self.ignore_value
        difference = logits[:, 1] - logits[:, 0]
        losses = sigmoid_focal_loss(difference, (targets == 1).to(difference), alpha=-1, gamma=self.focal_gamma)
        # Weights instead of an index, which would wait for the device.
        return torch.where(known, losses, 0).sum() / known.sum().clamp(min=1) * self.loss_weight


@SEM_SEG_HEADS_REGISTRY.register()
class ContourSegHead(RecurrentHead, ContourReadout):
    """A recurrence that traces contours on the stem's features (Linsley et al. 2020, suppl. 3.1).

    The losses are `loss_sem_seg` and `loss_lipschitz`, whatever the rule; loss_sem_seg is over all
    states that the recurrence has read out.

    Args:
        input_shape: {"stem": ShapeSpec} of the features, as wide as the recurrence's cell.
        recurrence: its cell has an attribute `channels`.
        penalty_weight: factor of the recurrence's penalty in `loss_lipschitz` (paper: 10, of a penalty by its mean).
        test_steps: cell evaluations in inference; None: as many as in training.
        kwargs: further arguments of ContourReadout.

    Raises:
        SettingError: values outside these.
        ContradictionError: widths that do not fit, a weight of 0 for a penalty that the recurrence has.
    """

    @keyed
    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        recurrence: Recurrence,
        penalty_weight: float = 0.001,
        test_steps: int | None = None,
        **kwargs,
    ):
        channels = recurrence.cell.channels
        if input_shape["stem"].channels != channels:
            raise ContradictionError(
                {"channels": channels, "stem_channels": input_shape["stem"].channels},
                "a contour head is as wide as its stem",
                "ContourSegHead",
            )
        super().__init__(channels, **kwargs)
        self.set_recurrence(recurrence, penalty_weight, test_steps)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict:
        return {
            **head_settings(cfg),
            **cls.settings(cfg),
            "input_shape": input_shape,
            "recurrence": build_recurrence(cfg, input_shape["stem"].channels),
        }

    def infer(self, drive: Tensor) -> Tensor:
        """Logits after `test_steps` steps."""
        return self.read_out(self.solve(drive).state[0])

    def losses(self, drive: Tensor, targets: Tensor) -> dict[str, Tensor]:
        output = self.solve(drive)
        log_solve(output)
        return {
            "loss_sem_seg": output.loss(lambda h: self.focal_loss(h, targets)),
            "loss_lipschitz": self.weighted_penalty(output),
        }


@SEM_SEG_HEADS_REGISTRY.register()
class FeedforwardContourHead(ContourReadout):
    """The feedforward control: convolutions in place of the recurrence, the same readout and loss.

    Args:
        layers: N x C x H x W -> N x C x H x W, with an attribute `channels`.
        kwargs: further arguments of ContourReadout.
    """

    @keyed
    def __init__(self, *, layers: FeedforwardControl, **kwargs):
        super().__init__(layers.channels, **kwargs)
        self.layers = layers

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict:
        return {**cls.settings(cfg), "layers": build_feedforward(cfg, input_shape["stem"].channels)}

    def infer(self, drive: Tensor) -> Tensor:
        return self.read_out(self.layers(drive))

    def losses(self, drive: Tensor, targets: Tensor) -> dict[str, Tensor]:
        return {"loss_sem_seg": self.focal_loss(self.layers(drive), targets)}
