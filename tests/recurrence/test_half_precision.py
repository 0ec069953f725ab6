"""Gradients in half precision: the same at every loss scale, and an overflow reaches the loss scaler."""

import pytest
import torch
from torch import nn

from crbp_d2.cells import GalaHGRUCell, HGRUCell
from crbp_d2.recurrence import Anderson, Broyden, FixedSteps, Implicit, NeumannSeries, Recurrence

# From where parameters lose digits to where their gradients, of up to 90, overflow.
SCALES = [2.0**k for k in range(-6, 10)]


@pytest.mark.filterwarnings("ignore::crbp_d2.recurrence.UnconvergedWarning")
@pytest.mark.parametrize("cell", [GalaHGRUCell, HGRUCell])
@pytest.mark.parametrize(
    "transpose", [NeumannSeries(8), Anderson(max_steps=8, tol=1e-4), Broyden(max_steps=8, tol=1e-4)], ids=repr
)
def test_gradients_do_not_depend_on_the_loss_scale(cell, transpose):
    torch.manual_seed(0)
    recurrence = Recurrence(cell(8, 3, norm="GN"), FixedSteps(6), Implicit(transpose))
    drive = torch.randn(4, 8, 6, 6)

    def gradient(scale):
        recurrence.zero_grad()
        with torch.autocast("cpu", dtype=torch.float16):
            state = recurrence(drive).state[0]
        (scale * state.sin().sum()).backward()
        return torch.cat([p.grad.flatten() / scale for p in recurrence.parameters()])

    truth = gradient(1.0)
    found = {scale: gradient(scale) for scale in SCALES}
    finite = [scale for scale in SCALES if found[scale].isfinite().all()]
    # What overflows is infinite for the scaler to see; below, only the parameters' own gradients are rounded anew.
    assert finite == SCALES[: len(finite)] and len(finite) >= 12
    for scale in finite:
        assert (found[scale] - truth).norm() < 0.02 * truth.norm(), scale


class ExplodingBackward(nn.Module):
    """h' = h / 2 + z, whose products with the Jacobian overflow."""

    def initial_state(self, drive):
        return (torch.zeros_like(drive),)

    def forward(self, drive, state):
        return (Explode.apply(state[0]) + drive * self.weight,)

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))


class Explode(torch.autograd.Function):
    @staticmethod
    def forward(ctx, h):
        return 0.5 * h

    @staticmethod
    def backward(ctx, g):
        return torch.full_like(g, torch.inf)


@pytest.mark.filterwarnings("ignore::crbp_d2.recurrence.UnconvergedWarning")
@pytest.mark.parametrize("transpose", [NeumannSeries(4), Anderson(max_steps=4), Broyden(max_steps=4)], ids=repr)
def test_an_overflowing_product_reaches_the_scaler(transpose):
    cell = ExplodingBackward()
    recurrence = Recurrence(cell, FixedSteps(6), Implicit(transpose))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        state = recurrence(torch.ones(2, 3)).state[0]
    state.sum().backward()
    assert not cell.weight.grad.isfinite()
