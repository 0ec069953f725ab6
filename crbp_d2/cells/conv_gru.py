"""The convolutional GRU.

N: batch; C: channels; H x W: image size; E: kernel size.
"""

import torch
from torch import Tensor, nn

from crbp_d2.layers.cache import driven_by
from crbp_d2.layers.convolution import horizontal_convolution
from crbp_d2.layers.norms import build_norm
from crbp_d2.recurrence.state import State
from crbp_d2.utils.errors import check_choice, check_whole

from .init import STARTS, chrono_bias, of_zeros


class ConvGRUCell(nn.Module):
    """Convolutional gated recurrent unit (Ballas et al. 2016).

        r, u = sig( V z + norm(W h) + b )      g = tanh( V_g z + norm(W_g (r . h)) + b_g )
        h'   = (1 - u) . h + u . g

    with V, W E x E convolutions of their own for r, u and g.

    Args:
        channels: C.
        kernel_size: E, odd.
        norm: name for `build_norm`.
        timescale: steps the recurrence is meant to run; sets the chrono initialization of the bias of u.
        start: h_0, "zero" or "drive": g of a state of zeros, to which h would settle if the connections saw no other
            state; it costs a third of a step.

    Raises:
        ValueError: channels, kernel size, norm, timescale or start outside these.
    """

    def __init__(
        self, channels: int, kernel_size: int = 15, norm: str = "none", timescale: int = 20, start: str = "zero"
    ):
        super().__init__()
        check_whole("ConvGRUCell", channels=channels, timescale=timescale)
        check_choice("ConvGRUCell", STARTS, start=start)
        self.channels = channels = int(channels)  # Torch splits by no other integers.
        self.start = start
        self.input = horizontal_convolution(channels, 3 * channels, kernel_size, bias=True)
        self.gates = horizontal_convolution(channels, 2 * channels, kernel_size)
        self.gates_norm = build_norm(norm, 2 * channels)
        self.candidate = horizontal_convolution(channels, channels, kernel_size)
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
        if self.start == "zero":
            return (torch.zeros_like(drive),)
        driven = self.input(drive)[:, 2 * self.channels :]
        return (torch.tanh(driven + of_zeros(self.candidate_norm, drive, self.channels)).to(drive.dtype),)

    def forward(self, drive: Tensor, state: State) -> State:
        """One step. drive: N x C x H x W; state: one tensor of the same shape."""
        (h,) = state
        driven = driven_by(drive, self.input)
        gates, candidate = driven.split([2 * self.channels, self.channels], dim=1)
        reset, update = torch.sigmoid(gates + self.gates_norm(self.gates(h))).chunk(2, dim=1)
        candidate = torch.tanh(candidate + self.candidate_norm(self.candidate(reset * h)))
        return (h + update * (candidate - h),)
