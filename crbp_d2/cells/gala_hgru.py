"""The GALA hGRU of the paper's mask head.

N: RoIs; C: channels; H x W: RoI size; E: kernel size.
"""

import torch
from torch import Tensor, nn

from crbp_d2.layers.convolution import PointwiseConv2d, horizontal_convolution
from crbp_d2.layers.elementwise import elementwise
from crbp_d2.layers.norms import build_norm
from crbp_d2.layers.softplus import softplus
from crbp_d2.recurrence.state import State
from crbp_d2.utils.errors import SettingError, check_choice, check_whole

from .horizontal import HorizontalCell
from .init import STARTS, chrono_bias


class GalaHGRUCell(HorizontalCell):
    """Horizontal gated recurrent unit with a global-and-local attention gate on its input.

        gate = sig( (V2 sp(V1 h)) . (P2 sp(P1 h + p)) + b )
        S    = sp( z - norm(W_S (h . gate)) . (alpha h + mu) )
        G    = sig( U S )
        h'   = (1 - G) h + G . sp( norm(W_F S) )

    sp is softplus, sig the logistic function, z the drive. V1, V2 and U are 1x1 convolutions
    (C to C/4 to C, C to C), P1, P2 and W are E x E (C to C/2 to 1, C to C).
    Source: Linsley et al. 2020, supplementary section on panoptic segmentation.

    Args:
        channels: C, at least 4 and divisible by 4.
        kernel_size: E, odd.
        norm: name for `build_norm`.
        timescale: steps the recurrence is meant to run; sets the chrono initialization of both gates.
        start: h_0, "zero" or "drive": sp( norm(W_F S) ) of the S that a state of zeros has, to which h would settle if
            the connections saw no other state; it costs half a step.

    Raises:
        ValueError: channels, kernel size, norm, timescale or start outside these.
    """

    def __init__(self, channels: int, kernel_size: int = 3, norm: str = "GN", timescale: int = 20, start: str = "zero"):
        super().__init__()
        check_whole("GalaHGRUCell", channels=channels, timescale=timescale)
        if channels % 4:
            raise SettingError("channels", channels, "multiples of 4", "GalaHGRUCell")
        check_choice("GalaHGRUCell", STARTS, start=start)
        self.channels = channels
        self.start = start
        self.channel_gate_1 = PointwiseConv2d(channels, channels // 4)
        self.channel_gate_2 = PointwiseConv2d(channels // 4, channels, bias=False)
        self.spatial_gate_1 = horizontal_convolution(channels, channels // 2, kernel_size, bias=True)
        self.spatial_gate_2 = horizontal_convolution(channels // 2, 1, kernel_size)
        self.gate_bias = nn.Parameter(torch.empty(channels, 1, 1))
        self.inhibition = horizontal_convolution(channels, channels, kernel_size)
        self.inhibition_norm = build_norm(norm, channels)
        self.excitation = horizontal_convolution(channels, channels, kernel_size)
        self.excitation_norm = build_norm(norm, channels)
        self.update_gate = PointwiseConv2d(channels, channels)
        self.alpha = nn.Parameter(torch.full((channels, 1, 1), 0.1))
        self.mu = nn.Parameter(torch.ones(channels, 1, 1))
        self._initialize(timescale)

    @torch.no_grad()
    def _initialize(self, timescale: int) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        bias = chrono_bias(self.channels, timescale)
        self.gate_bias.copy_(bias.view(-1, 1, 1))
        self.update_gate.bias.copy_(-bias)  # type: ignore[union-attr]

    def initial_state(self, drive: Tensor) -> State:
        """h_0, of the drive's shape."""
        if self.start == "zero":
            return (torch.zeros_like(drive),)

        def settled(drive: Tensor, _: State) -> State:
            return (elementwise(softplus, (self._excited_by(self._suppressed_of_zeros(drive)),)),)

        (h,) = settled(drive, ())
        return (h.to(drive.dtype),)

    def forward(self, drive: Tensor, state: State) -> State:
        """One step. drive: N x C x H x W; state: one tensor of the same shape."""
        return self._step(drive, state)

    def first_step(self, drive: Tensor, state: State) -> State:
        """The step from the initial state, without what zeros make zero."""
        if self.start != "zero":
            return self(drive, state)

        def step(drive: Tensor, _: State) -> State:
            return self._updated(drive.new_zeros(()), self._suppressed_of_zeros(drive))

        return step(drive, ())

    def _step(self, drive: Tensor, state: State) -> State:
        (h,) = state
        channel = self.channel_gate_2(elementwise(softplus, (self.channel_gate_1(h),)))
        spatial = self.spatial_gate_2(elementwise(softplus, (self.spatial_gate_1(h),)))
        gated = elementwise(_gated, (h, channel, spatial), (self.gate_bias,))
        inhibition = self.inhibition_norm(self.inhibition(gated))
        return self._updated(h, self._suppressed(drive, h, inhibition))

    @staticmethod
    def _suppression(h: Tensor, inhibition: Tensor, drive: Tensor, alpha: Tensor, mu: Tensor) -> Tensor:
        return softplus(drive - inhibition * (alpha * h + mu))

    def _updated(self, h: Tensor, suppressed: Tensor) -> State:
        return (elementwise(_updated, (h, self.update_gate(suppressed), self._excited_by(suppressed))),)


def _gated(h: Tensor, channel: Tensor, spatial: Tensor, bias: Tensor) -> Tensor:
    return h * torch.sigmoid(channel * spatial + bias)


def _updated(h: Tensor, gate: Tensor, excitation: Tensor) -> Tensor:
    return h + torch.sigmoid(gate) * (softplus(excitation) - h)
