"""The phantom gradient against sums of dense Jacobian powers, in float64."""

import pytest
import torch
from helpers.fixed_point import damped_sum
from helpers.problems import TanhCell, drive_for, gradients, iterate, loss_of

from crbp_d2.recurrence import Anderson, FixedSteps, Phantom, Recurrence, Truncated, learning_rule
from crbp_d2.utils.errors import SettingError

EXACT = {"rtol": 0, "atol": 1e-9}


@pytest.mark.parametrize("solver", ["FixedSteps", "Anderson", "Broyden"])
@pytest.mark.parametrize(("kept", "damping"), [(1, 0.5), (2, 1.0), (5, 0.3)])
def test_gradient_is_a_sum_of_damped_jacobian_powers(problem, solver, kept, damping):
    cell, drive = problem
    settings = {"truncation": kept, "phantom_damping": damping, "solver": solver, "tol": 1e-13}
    output = learning_rule("phantom", cell, steps=400, **settings)(drive)
    torch.testing.assert_close(output.state, iterate(cell, drive, 1000), **EXACT)
    for ours, truth in zip(
        gradients(cell, drive, loss_of(output.state)), damped_sum(cell, drive, kept, damping), strict=True
    ):
        assert truth.abs().max() > 1e-3
        torch.testing.assert_close(ours, truth, **EXACT)


def test_undamped_plain_steps_are_those_of_truncated(problem):
    cell, drive = problem
    found = [Recurrence(cell, FixedSteps(7), gradient)(drive) for gradient in (Phantom(3, 1.0), Truncated(3))]
    states = [output.state for output in found]
    for a, b in zip(*states, strict=True):
        assert torch.equal(a, b)
    for a, b in zip(*(gradients(cell, drive, loss_of(state)) for state in states), strict=True):
        assert torch.equal(a, b)
    assert found[0].stats.steps == found[1].stats.steps == 7


def test_only_the_last_steps_are_recorded():
    seen = []

    class Watching(TanhCell):
        def forward(self, drive, state):
            seen.append(torch.is_grad_enabled())
            return super().forward(drive, state)

    cell = Watching()
    drive = drive_for(cell)
    recurrence = Recurrence(cell, Anderson(12, tol=1e-12), Phantom(3))
    assert recurrence(drive).stats.steps == len(seen) and seen == [False] * (len(seen) - 3) + [True] * 3


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: Phantom(0), "truncation"),
        (lambda: Phantom(3, 0.0), "damping"),
        (lambda: Phantom(3, 1.5), "damping"),
        (lambda: learning_rule("phantom", TanhCell(), steps=2, truncation=3), "truncation"),
        (lambda: Recurrence(TanhCell(), FixedSteps(5), Phantom(3), supervision="every"), "supervision"),
    ],
)
def test_settings_that_are_none_raise(make, name):
    with pytest.raises(SettingError) as error:
        make()
    assert error.value.name == name
