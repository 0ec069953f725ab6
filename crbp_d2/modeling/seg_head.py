"""The recurrent semantic head.

N: images of the batch; C: channels of the cell; K: classes; h x w: size at the common stride; H x W: of the images.
"""

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from detectron2.config import CfgNode
from detectron2.layers import Conv2d, ShapeSpec, get_norm
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from detectron2.modeling.meta_arch.semantic_seg import SemSegFPNHead
from fvcore.nn import weight_init
from torch import Tensor, nn
from torch.nn import functional as F

from crbp_d2.recurrence import Recurrence
from crbp_d2.recurrence.state import State, select, total

from .build import build_recurrence, keyed, panoptic_head_settings
from .heads import RecurrentHead, check_readout_norm, log_solve


@dataclass
class CarriedState:
    """The state that a head carries from frame to frame.

    state: state after the last frame; None before the first.
    tracks: states that are carried apart from it, by name.
    """

    state: State | None = None
    tracks: "dict[Hashable, CarriedState]" = field(default_factory=dict)


@SEM_SEG_HEADS_REGISTRY.register()
class RecurrentSemSegHead(RecurrentHead, SemSegFPNHead):
    """A recurrence between the fused FPN features and the predictor of detectron2's SemSegFPNHead.

    The features of all levels are brought to one stride and added as in Panoptic FPN; their sum drives the
    recurrence, whose last state (of a cell with several tensors the first) is read out by norm and a 1x1 predictor.
    In training the losses are `loss_sem_seg` and `loss_lipschitz_sem_seg`, whatever the rule; with supervision
    "every", loss_sem_seg is the mean over all states. The solve's scalars have the prefix `recurrence_sem_seg`.

    Args:
        input_shape: shapes of the features that are used.
        recurrence: its cell has an attribute `channels`; other channels than `conv_dims` are projected by a 1x1
            convolution.
        num_classes: K.
        conv_dims: channels of the fused features.
        common_stride: stride that all levels are brought to.
        readout_norm: "", "BN", "SyncBN" or "GN", as in detectron2.
        penalty_weight: factor of the recurrence's penalty in `loss_lipschitz_sem_seg`.
        test_steps: cell evaluations in inference; None: as many as in training.
        kwargs: loss_weight, norm (of the convolutions before the recurrence) and ignore_value of SemSegFPNHead.

    Raises:
        SettingError: values outside these.
        ContradictionError: a weight of 0 for a penalty that the recurrence has; "GN" of channels that it cannot group.
    """

    @keyed
    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        recurrence: Recurrence,
        num_classes: int,
        conv_dims: int = 128,
        common_stride: int = 4,
        readout_norm: str = "BN",
        penalty_weight: float = 0.001,
        test_steps: int | None = None,
        **kwargs,
    ):
        super().__init__(
            input_shape, num_classes=num_classes, conv_dims=conv_dims, common_stride=common_stride, **kwargs
        )
        channels = recurrence.cell.channels
        check_readout_norm(self, readout_norm, channels)
        self.projection: nn.Module = nn.Identity()
        if channels != conv_dims:
            self.projection = Conv2d(conv_dims, channels, kernel_size=1)
            weight_init.c2_msra_fill(self.projection)
        self.set_recurrence(recurrence, penalty_weight, test_steps)
        self.readout = get_norm(readout_norm, channels) or nn.Identity()
        self.predictor = Conv2d(channels, num_classes, kernel_size=1)
        weight_init.c2_msra_fill(self.predictor)
        self._carried: CarriedState | None = None

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict:
        return {
            **super().from_config(cfg, input_shape),
            **panoptic_head_settings(cfg),
            "recurrence": build_recurrence(cfg, cfg.MODEL.SEM_SEG_HEAD.CONVS_DIM),
        }

    def forward(
        self, features: dict[str, Tensor], targets: Tensor | None = None
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """features: of the FPN; targets: N x H x W classes, in training. Returns (None, losses) or (logits, {})."""
        drive = self.drive(features)
        if not self.training:
            return self._to_image(self._infer(drive)), {}
        if targets is None:
            raise ValueError("RecurrentSemSegHead: training needs the inputs' 'sem_seg', which has none")
        output = self.solve(drive)
        log_solve(output, prefix="recurrence_sem_seg")
        return None, {
            "loss_sem_seg": output.loss(lambda h: self.losses(self.read_out(h), targets)["loss_sem_seg"]),
            "loss_lipschitz_sem_seg": self.weighted_penalty(output),
        }

    def drive(self, features: dict[str, Tensor]) -> Tensor:
        """The drive of the recurrence, N x C x h x w."""
        levels = [scale(features[name]) for name, scale in zip(self.in_features, self.scale_heads, strict=True)]
        return self.projection(sum(levels[1:], levels[0]))

    def layers(self, features: dict[str, Tensor]) -> Tensor:
        """Logits, N x K x h x w."""
        return self.read_out(self.solve(self.drive(features)).state[0])

    def read_out(self, state: Tensor) -> Tensor:
        """Logits, N x K x h x w, of a recurrent state, N x C x h x w."""
        return self.predictor(self.readout(state))

    @contextmanager
    def carry_state(self, track: Hashable = None) -> Iterator[None]:
        """While it lasts, each inference starts from the state that the one before ended with.

        For the frames of a video: what changes little needs few steps more, where the solver or the early exit stops
        at a tolerance. A frame of another size, or another number of them, starts anew; one whose state is not finite
        is passed over. An inner context begins anew and leaves the state of the outer one as it was.

        Args:
            track: within another context, a name of a state that the outer context keeps for all inner ones of that
                name, so that several runs over the same frames do not mix.
        """
        outer = self._carried
        inner = CarriedState()
        self._carried = inner if outer is None or track is None else outer.tracks.setdefault(track, inner)
        try:
            yield
        finally:
            self._carried = outer

    def _infer(self, drive: Tensor) -> Tensor:
        carried = self._carried
        before = carried.state if carried else None
        if before and _shapes(before) != _shapes(self.recurrence.cell.initial_state(drive)):
            before = None
        output = self.solve(drive, before)
        if carried:
            state = tuple(part.detach() for part in output.state)
            finite = total(state).isfinite()
            carried.state = state if finite.all() else before and select(finite, state, before)
        return self.read_out(output.state[0])

    def _to_image(self, logits: Tensor) -> Tensor:
        return F.interpolate(logits, scale_factor=self.common_stride, mode="bilinear", align_corners=False)


def _shapes(state: State) -> list[torch.Size]:
    return [part.shape for part in state]
