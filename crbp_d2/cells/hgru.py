"""The hGRU of the Pathfinder experiments.

N: batch; C: channels; H x W: image size; E: kernel size.
"""

import torch
from torch import Tensor, nn

from crbp_d2.layers.convolution import HorizontalConv2d
from crbp_d2.layers.fused import fused, softplus
from crbp_d2.layers.norms import build_norm
from crbp_d2.recurrence.state import State
from crbp_d2.utils.errors import check_choice

from .init import check_cell, chrono_bias, gain

FORMS = ("printed", "released")
GAINS = ("kappa", "gamma", "omega")


@fused()
def _gated(gate: Tensor, h: Tensor) -> Tensor:
    return h * torch.sigmoid(gate)


@fused(fixed=["drive", "alpha", "mu"])
def _suppressed(h: Tensor, inhibition: Tensor, drive: Tensor, alpha: Tensor, mu: Tensor) -> Tensor:
    return softplus(drive - softplus((alpha * h + mu) * inhibition))


@fused(fixed=GAINS)
def _candidate(c: Tensor, s: Tensor, kappa: Tensor, gamma: Tensor, omega: Tensor) -> Tensor:
    return softplus(kappa * s + gamma * c + omega * c * s)


@fused(fixed=GAINS)
def _updated(h: Tensor, gate: Tensor, c: Tensor, s: Tensor, kappa: Tensor, gamma: Tensor, omega: Tensor) -> Tensor:
    return h + torch.sigmoid(gate) * (_candidate(c, s, kappa, gamma, omega) - h)


@fused(fixed=GAINS)
def _released(h: Tensor, gate: Tensor, c: Tensor, s: Tensor, kappa: Tensor, gamma: Tensor, omega: Tensor) -> Tensor:
    return softplus(_updated(h, gate, c, s, kappa, gamma, omega))


class HGRUCell(nn.Module):
    """Horizontal gated recurrent unit (Linsley et al. 2020, supplementary section 3.1).

        G    = sig( U_S h )
        S    = sp( z - sp( (alpha h + mu) . norm(W_S (h . G)) ) )
        G_F  = sig( U_F S )
        C_F  = norm(W_F S)
        H    = sp( nu (C_F + S) + omega C_F . S )
        h'   = (1 - G_F) h + G_F H

    sp is softplus, sig the logistic function, z the drive. U_S, U_F are 1x1 convolutions with bias, W_S,
    W_F E x E without. The authors' released parameters have another form:

        H    = sp( kappa S + gamma C_F + omega C_F . S )
        h'   = sp( (1 - G_F) h + G_F H )

    Args:
        channels: C.
        kernel_size: E, odd.
        norm: name for `build_norm`.
        timescale: steps the recurrence is meant to run; sets the chrono initialization of both gates.
        form: "printed" or "released".
        start: h_0, "zero" or "drive": H with the S of a state of zeros (the released form's: sp(H)), to which h would
            converge if the connections saw no other state; it costs half a step.

    Raises:
        SettingError: invalid channels, kernel size, norm, timescale, form or start.
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
        check_cell("HGRUCell", channels, timescale, start)
        check_choice("HGRUCell", FORMS, form=form)
        self.channels = channels
        self.start = start
        self.form = form
        self.input_gate = HorizontalConv2d(channels, channels, 1, bias=True)
        self.inhibition = HorizontalConv2d(channels, channels, kernel_size)
        self.inhibition_norm = build_norm(norm, channels)
        self.update_gate = HorizontalConv2d(channels, channels, 1, bias=True)
        self.excitation = HorizontalConv2d(channels, channels, kernel_size)
        self.excitation_norm = build_norm(norm, channels)
        self.alpha, self.mu, self.omega = gain(channels, 0.1), gain(channels, 1.0), gain(channels, 0.5)
        if form == "printed":
            self.nu = gain(channels, 0.5)
        else:
            self.kappa, self.gamma = gain(channels, 0.5), gain(channels, 1.0)
        self._initialize(timescale)

    @torch.no_grad()
    def _initialize(self, timescale: int) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.orthogonal_(module.weight)
        bias = chrono_bias(self.channels, timescale)
        self.input_gate.bias.copy_(bias)  # type: ignore[union-attr]
        self.update_gate.bias.copy_(-bias)  # type: ignore[union-attr]

    @property
    def _gains(self) -> tuple[Tensor, Tensor, Tensor]:
        """kappa, gamma and omega; the printed form has nu in the place of the first two."""
        return (self.nu, self.nu, self.omega) if self.form == "printed" else (self.kappa, self.gamma, self.omega)

    def initial_state(self, drive: Tensor) -> State:
        """h_0, of the drive's shape."""
        h = torch.zeros_like(drive)
        if self.start == "drive":
            s = _suppressed(h, self.inhibition_norm(h), drive, self.alpha, self.mu)
            h = _candidate(self.excitation_norm(self.excitation(s)), s, *self._gains)
            h = (h if self.form == "printed" else softplus(h)).to(drive.dtype)
        return (h,)

    def forward(self, drive: Tensor, state: State) -> State:
        """One step. drive: N x C x H x W; state: one tensor of the same shape."""
        (h,) = state
        gated = _gated(self.input_gate(h), h)
        s = _suppressed(h, self.inhibition_norm(self.inhibition(gated)), drive, self.alpha, self.mu)
        gate, c = self.update_gate(s), self.excitation_norm(self.excitation(s))
        updated = _updated if self.form == "printed" else _released
        return (updated(h, gate, c, s, *self._gains),)
