"""torchdeq as an outside oracle for fixed points and their gradients."""

import pytest
import torch
from helpers.problems import PROBLEMS, drive_for, flat, split
from torchdeq import get_deq

from crbp_d2.cells import ConvLSTMCell, GalaHGRUCell, HGRUCell
from crbp_d2.recurrence import learning_rule

CELLS = {
    "gala": lambda: GalaHGRUCell(4, timescale=4),
    "hgru": lambda: HGRUCell(3, 3, norm="GN", timescale=4),
    "lstm": lambda: ConvLSTMCell(3, 3, timescale=4),
}


def oracle(cell, drive):
    """The fixed point as N x D, differentiable by torchdeq's implicit gradient."""
    like = cell.initial_state(drive)
    deq = get_deq(
        ift=True, f_solver="fixed_point_iter", b_solver="fixed_point_iter", f_max_iter=5000, b_max_iter=5000,
        f_tol=1e-12, b_tol=1e-12,
    )  # fmt: skip
    points, _ = deq(lambda vector: flat(cell(drive, split(vector, like))), flat(like))
    return points[-1]


def small_weights(cell):
    """Half of every convolution: contractive enough for plain iteration to end."""
    with torch.no_grad():
        for name, parameter in cell.named_parameters():
            if parameter.dim() == 4 and name != "input.weight":
                parameter.mul_(0.5)
    return cell.double()


@pytest.mark.parametrize("solver", ["Anderson", "Broyden"])
@pytest.mark.parametrize("name", [*PROBLEMS, *CELLS])
def test_state_and_gradients_are_torchdeqs(name, solver):
    torch.manual_seed(0)
    if name in PROBLEMS:
        cell = PROBLEMS[name]()
        drive = drive_for(cell).requires_grad_()
    else:
        cell = small_weights(CELLS[name]())
        drive = torch.randn(2, cell.channels, 4, 5, dtype=torch.float64, requires_grad=True)
    wanted = [*cell.parameters(), drive]
    output = learning_rule("deq", cell, steps=400, solver=solver, tol=1e-12)(drive)
    ours = torch.autograd.grad(flat(output.state).sin().sum(), wanted)
    assert output.stats.converged.all() and output.stats.transpose.converged.all()
    truth_state = oracle(cell, drive)
    truth = torch.autograd.grad(truth_state.sin().sum(), wanted)
    torch.testing.assert_close(flat(output.state), truth_state, rtol=0, atol=1e-9)
    for a, b in zip(ours, truth, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9)
