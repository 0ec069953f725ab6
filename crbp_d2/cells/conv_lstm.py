"""The convolutional LSTM.

N: batch; C: channels; H x W: image size; E: kernel size.
"""

import torch
from torch import Tensor, nn

from crbp_d2.layers.convolution import HorizontalConv2d
from crbp_d2.layers.norms import build_norm
from crbp_d2.recurrence.state import State

from .init import check_cell, chrono_bias


class ConvLSTMCell(nn.Module):
    """Convolutional long short-term memory (Shi et al. 2015, without peepholes); the state is (h, c).

        i, f, o = sig( V z + norm(W h) + b )      g = tanh( V z + norm(W h) + b )
        c' = f . c + i . g                        h' = o . tanh(c')

    with separate E x E convolutions V, W for i, f, o and g.

    Args:
        channels: C.
        kernel_size: E, odd.
        norm: name for `build_norm`, over the 4 C channels of W h.
        timescale: steps the recurrence is meant to run; sets the chrono initialization of the biases of f and i.
        start: (h_0, c_0), "zero" or "drive": o . tanh(c_0) and i . g / (1 - f) of a state of zeros, to which both would
            converge if the connections saw no other state; it costs half a step.

    Raises:
        SettingError: invalid channels, kernel size, norm, timescale or start.
    """

    def __init__(
        self, channels: int, kernel_size: int = 15, norm: str = "none", timescale: int = 20, start: str = "zero"
    ):
        super().__init__()
        check_cell("ConvLSTMCell", channels, timescale, start)
        self.channels = channels
        self.start = start
        self.input = HorizontalConv2d(channels, 4 * channels, kernel_size, bias=True, of_drive=True)
        self.recurrent = HorizontalConv2d(channels, 4 * channels, kernel_size)
        self.recurrent_norm = build_norm(norm, 4 * channels)
        self._initialize(timescale)

    @torch.no_grad()
    def _initialize(self, timescale: int) -> None:
        for convolution in (self.input, self.recurrent):
            for gate_weight in convolution.weight.chunk(4):
                nn.init.orthogonal_(gate_weight)
        forget = chrono_bias(self.channels, timescale)
        zero = torch.zeros_like(forget)
        self.input.bias.copy_(torch.cat([-forget, forget, zero, zero]))  # type: ignore[union-attr]

    def initial_state(self, drive: Tensor) -> State:
        """(h_0, c_0), of the drive's shape."""
        h, c = torch.zeros_like(drive), torch.zeros_like(drive)
        if self.start == "drive":
            recurrent = self.recurrent_norm(torch.cat([h] * 4, dim=1))
            i, f, o, g = (self.input(drive) + recurrent).chunk(4, dim=1)
            c = torch.sigmoid(i) * torch.tanh(g) / torch.sigmoid(-f)  # 1 - sig(f)
            h = torch.sigmoid(o) * torch.tanh(c)
        return h.to(drive.dtype), c.to(drive.dtype)

    def forward(self, drive: Tensor, state: State) -> State:
        """One step. drive: N x C x H x W; state: two tensors of the same shape."""
        h, c = state
        i, f, o, g = (self.input(drive) + self.recurrent_norm(self.recurrent(h))).chunk(4, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c
