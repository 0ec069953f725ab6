"""The hGRU of the Pathfinder experiments.

N: batch; C: channels; H x W: image size; E: kernel size.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from crbp_d2.layers.convolution import PointwiseConv2d, horizontal_convolution
from crbp_d2.layers.elementwise import elementwise
from crbp_d2.layers.norms import build_norm
from crbp_d2.layers.softplus import softplus
from crbp_d2.recurrence.state import State
from crbp_d2.utils.errors import check_choice, check_whole

from .horizontal import HorizontalCell
from .init import STARTS, chrono_bias

FORMS = ("printed", "released")


class HGRUCell(HorizontalCell):
    """Horizontal gated recurrent unit (Linsley et al. 2020, supplementary section 3.1).

        G    = sig( U_S h )
        S    = sp( z - sp( (alpha h + mu) . norm(W_S (h . G)) ) )
        G_F  = sig( U_F S )
        C_F  = norm(W_F S)
        H    = sp( nu (C_F + S) + omega C_F . S )
        h'   = (1 - G_F) h + G_F H

    sp is softplus, sig the logistic function, z the drive. U_S, U_F are 1x1 convolutions with bias, W_S,
    W_F E x E without. The authors' released parameters belong to another form:

        H    = sp( kappa S + gamma C_F + omega C_F . S )
        h'   = sp( (1 - G_F) h + G_F H )

    Args:
        channels: C.
        kernel_size: E, odd.
        norm: name for `build_norm`.
        timescale: steps the recurrence is meant to run; sets the chrono initialization of both gates.
        form: "printed" or "released".
        start: h_0, "zero" or "drive": H of the S that a state of zeros has (the released form's: sp(H)), to which h
            would settle if the connections saw no other state; it costs half a step.

    Raises:
        ValueError: channels, kernel size, norm, timescale, form or start outside these.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int = 15,
        norm: str = "BN",
        timescale: int = 20,
        form: str = "printed",
        start: str = "zero",
    ):
        super().__init__()
        check_whole("HGRUCell", channels=channels, timescale=timescale)
        check_choice("HGRUCell", FORMS, form=form)
        check_choice("HGRUCell", STARTS, start=start)
        self.channels = channels
        self.start = start
        self.form = form

        def gain(value: float) -> nn.Parameter:
            return nn.Parameter(torch.full((channels, 1, 1), value))

        self.input_gate = PointwiseConv2d(channels, channels)
        self.inhibition = horizontal_convolution(channels, channels, kernel_size)
        self.inhibition_norm = build_norm(norm, channels)
        self.update_gate = PointwiseConv2d(channels, channels)
        self.excitation = horizontal_convolution(channels, channels, kernel_size)
        self.excitation_norm = build_norm(norm, channels)
        self.alpha, self.mu, self.omega = gain(0.1), gain(1.0), gain(0.5)
        if form == "printed":
            self.nu = gain(0.5)
        else:
            self.kappa, self.gamma = gain(0.5), gain(1.0)
        self._initialize(timescale)

    @torch.no_grad()
    def _initialize(self, timescale: int) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.orthogonal_(module.weight)
        bias = chrono_bias(self.channels, timescale)
        self.input_gate.bias.copy_(bias)  # type: ignore[union-attr]
        self.update_gate.bias.copy_(-bias)  # type: ignore[union-attr]

    def initial_state(self, drive: Tensor) -> State:
        """h_0, of the drive's shape."""
        if self.start == "zero":
            return (torch.zeros_like(drive),)
        suppressed = self._suppressed_of_zeros(drive)
        h = self._output(_candidate, self._excited_by(suppressed), suppressed)
        return (h.to(drive.dtype),)

    def forward(self, drive: Tensor, state: State) -> State:
        """One step. drive: N x C x H x W; state: one tensor of the same shape."""
        (h,) = state
        gated = elementwise(_gated, (self.input_gate(h), h))
        inhibition = self.inhibition_norm(self.inhibition(gated))
        return self._updated(h, self._suppressed(drive, h, inhibition))

    def first_step(self, drive: Tensor, state: State) -> State:
        """The step from the initial state, without what zeros make zero."""
        if self.start != "zero":
            return self(drive, state)
        return self._updated(drive.new_zeros(()), self._suppressed_of_zeros(drive))

    @staticmethod
    def _suppression(h: Tensor, inhibition: Tensor, drive: Tensor, alpha: Tensor, mu: Tensor) -> Tensor:
        return softplus(drive - softplus((alpha * h + mu) * inhibition))

    def _updated(self, h: Tensor, suppressed: Tensor) -> State:
        gate, excitation = self.update_gate(suppressed), self._excited_by(suppressed)
        return (self._output(_updated, h, gate, excitation, suppressed),)

    def _output(self, function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        """A function of tensors and the gains, with the softplus of the released form."""
        if self.form == "printed":
            return elementwise(function, tensors, (self.nu, self.nu, self.omega))
        gains = (self.kappa, self.gamma, self.omega)
        return elementwise(lambda *values: softplus(function(*values)), tensors, gains)


def _gated(gate: Tensor, h: Tensor) -> Tensor:
    return h * torch.sigmoid(gate)


def _candidate(excitation: Tensor, suppressed: Tensor, kappa: Tensor, gamma: Tensor, omega: Tensor) -> Tensor:
    return softplus(kappa * suppressed + gamma * excitation + omega * excitation * suppressed)


def _updated(h: Tensor, gate: Tensor, excitation: Tensor, suppressed: Tensor, *gains: Tensor) -> Tensor:
    return h + torch.sigmoid(gate) * (_candidate(excitation, suppressed, *gains) - h)
