"""The convolutional GRU.

N: batch; C: channels; H x W: image size; E: kernel size.
"""

import torch
from torch import Tensor, nn

from crbp_d2.layers.convolution import HorizontalConv2d
from crbp_d2.layers.norms import build_norm
from crbp_d2.recurrence.state import State

from .init import check_cell, chrono_bias


class ConvGRUCell(nn.Module):
    """Convolutional gated recurrent unit (Ballas et al. 2016).

        r, u = sig( V z + norm(W h) + b )      g = tanh( V_g z + norm(W_g (r . h)) + b_g )
        h'   = (1 - u) . h + u . g

    with separate E x E convolutions V, W for r, u and g.

    Args:
        channels: C.
        kernel_size: E, odd.
        norm: name for `build_norm`.
        timescale: steps the recurrence is meant to run; sets the chrono initialization of the bias of u.
        start: h_0, "zero" or "drive": g of a state of zeros, to which h would converge if the connections saw no other
            state; it costs a third of a step.

    Raises:
        SettingError: invalid channels, kernel size, norm, timescale or start.
    """

    def __init__(
        self, channels: int, kernel_size: int = 15, norm: str = "none", timescale: int = 20, start: str = "zero"
    ):
        super().__init__()
        check_cell("ConvGRUCell", channels, timescale, start)
        self.channels = channels = int(channels)  # Torch splits by no other integers.
        self.start = start
        self.input = HorizontalConv2d(channels, 3 * channels, kernel_size, bias=True, of_drive=True)
        self.gates = HorizontalConv2d(channels, 2 * channels, kernel_size)
        self.gates_norm = build_norm(norm, 2 * channels)
        self.candidate = HorizontalConv2d(channels, channels, kernel_size)
        self.candidate_norm = build_norm(norm, channels)
        self._initialize(timescale)

    @torch.no_grad()
    def _initialize(self, timescale: int) -> None:
        for convolution in (self.input, self.gates, self.candidate):
            for gate_weight in convolution.weight.split(self.channels):
                nn.init.orthogonal_(gate_weight)
        update = -chrono_bias(self.channels, timescale)
        zero = torch.zeros_like(update)
        self.input.bias.copy_(torch.cat([zero, update, zero]))  # type: ignore[union-attr]

    def initial_state(self, drive: Tensor) -> State:
        """h_0, of the drive's shape."""
        h = torch.zeros_like(drive)
        if self.start == "drive":
            g = self.input(drive)[:, 2 * self.channels :] + self.candidate_norm(h)
            h = torch.tanh(g).to(drive.dtype)
        return (h,)

    def forward(self, drive: Tensor, state: State) -> State:
        """One step. drive: N x C x H x W; state: one tensor of the same shape."""
        (h,) = state
        gates, driven = self.input(drive).split([2 * self.channels, self.channels], dim=1)
        r, u = torch.sigmoid(gates + self.gates_norm(self.gates(h))).chunk(2, dim=1)
        g = torch.tanh(driven + self.candidate_norm(self.candidate(r * h)))
        return (h + u * (g - h),)
