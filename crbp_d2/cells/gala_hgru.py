"""The GALA hGRU of the paper's mask head.

N: RoIs; C: channels; H x W: RoI size; E: kernel size.
"""

import torch
from torch import Tensor, nn

from crbp_d2.layers.convolution import HorizontalConv2d
from crbp_d2.layers.fused import fused, softplus
from crbp_d2.layers.norms import build_norm
from crbp_d2.recurrence.state import State
from crbp_d2.utils.errors import SettingError

from .init import check_cell, chrono_bias, gain

sp = fused()(softplus)


@fused(fixed=["bias"])
def _gated(h: Tensor, channel: Tensor, spatial: Tensor, bias: Tensor) -> Tensor:
    return h * torch.sigmoid(channel * spatial + bias)


@fused(fixed=["drive", "alpha", "mu"])
def _suppressed(h: Tensor, inhibition: Tensor, drive: Tensor, alpha: Tensor, mu: Tensor) -> Tensor:
    return softplus(drive - inhibition * (alpha * h + mu))


@fused()
def _updated(h: Tensor, gate: Tensor, excitation: Tensor) -> Tensor:
    return h + torch.sigmoid(gate) * (softplus(excitation) - h)


class GalaHGRUCell(nn.Module):
    """Horizontal gated recurrent unit with a global-and-local attention gate on its input.

        gated = h . sig( (V2 sp(V1 h)) . (P2 sp(P1 h)) + b )
        S     = sp( z - norm(W_S gated) . (alpha h + mu) )
        h'    = (1 - sig(U S)) . h + sig(U S) . sp( norm(W_F S) )

    sp is softplus, sig the logistic function, z the drive. V1, V2 and U are 1x1 convolutions
    (C to C/4 to C, C to C), P1, P2 and W are E x E (C to C/2 to 1, C to C); V1, P1 and U have a bias.
    Source: Linsley et al. 2020, supplementary section on panoptic segmentation.

    Args:
        channels: C, at least 4 and divisible by 4.
        kernel_size: E, odd.
        norm: name for `build_norm`.
        timescale: steps the recurrence is meant to run; sets the chrono initialization of both gates.
        start: h_0, "zero" or "drive": sp( norm(W_F S) ) with the S of a state of zeros, to which h would converge if
            the connections saw no other state; it costs half a step.

    Raises:
        SettingError: invalid channels, kernel size, norm, timescale or start.
    """

    def __init__(self, channels: int, kernel_size: int = 3, norm: str = "GN", timescale: int = 20, start: str = "zero"):
        super().__init__()
        check_cell("GalaHGRUCell", channels, timescale, start)
        if channels % 4:
            raise SettingError("channels", channels, "multiples of 4", "GalaHGRUCell")
        self.channels = channels
        self.start = start
        self.channel_gate_1 = HorizontalConv2d(channels, channels // 4, 1, bias=True)
        self.channel_gate_2 = HorizontalConv2d(channels // 4, channels, 1)
        self.spatial_gate_1 = HorizontalConv2d(channels, channels // 2, kernel_size, bias=True)
        self.spatial_gate_2 = HorizontalConv2d(channels // 2, 1, kernel_size)
        self.gate_bias = nn.Parameter(torch.empty(channels, 1, 1))
        self.inhibition = HorizontalConv2d(channels, channels, kernel_size)
        self.inhibition_norm = build_norm(norm, channels)
        self.excitation = HorizontalConv2d(channels, channels, kernel_size)
        self.excitation_norm = build_norm(norm, channels)
        self.update_gate = HorizontalConv2d(channels, channels, 1, bias=True)
        self.alpha = gain(channels, 0.1)
        self.mu = gain(channels, 1.0)
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
        h = torch.zeros_like(drive)
        if self.start == "drive":
            s = _suppressed(h, self.inhibition_norm(h), drive, self.alpha, self.mu)
            h = sp(self.excitation_norm(self.excitation(s))).to(drive.dtype)
        return (h,)

    def forward(self, drive: Tensor, state: State) -> State:
        """One step. drive: N x C x H x W; state: one tensor of the same shape."""
        (h,) = state
        channel = self.channel_gate_2(sp(self.channel_gate_1(h)))
        spatial = self.spatial_gate_2(sp(self.spatial_gate_1(h)))
        gated = _gated(h, channel, spatial, self.gate_bias)
        s = _suppressed(h, self.inhibition_norm(self.inhibition(gated)), drive, self.alpha, self.mu)
        return (_updated(h, self.update_gate(s), self.excitation_norm(self.excitation(s))),)
