"""States with duplicate tensors, the drive or one number a sample, and invalid states."""

import pytest
import torch
from helpers.problems import TanhCell, dense_jacobian, drive_for, gradients, iterate, loss_of

from crbp_d2.cells import HGRUCell
from crbp_d2.recurrence import EarlyExit, FixedSteps, LipschitzPenalty, Phantom, Recurrence, Truncated, learning_rule
from crbp_d2.utils.errors import SettingError


class FromDrive(TanhCell):
    """h_0 is the drive itself."""

    def initial_state(self, drive):
        return (drive,)


class Doubled(TanhCell):
    """One tensor, returned as both of the state."""

    def initial_state(self, drive):
        zero = torch.zeros_like(drive)
        return zero, zero

    def forward(self, drive, state):
        new = torch.tanh(state[0] @ self.weight.T + 0.3 * state[1] + drive @ self.input.T)
        return new, new


class Passing(Doubled):
    """The second tensor of the state is the drive itself."""

    def initial_state(self, drive):
        return torch.zeros_like(drive), drive

    def forward(self, drive, state):
        return super().forward(drive, state)[0], drive


@pytest.mark.parametrize("cls", [FromDrive, Doubled, Passing])
@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize("rule", ["cbptt", "crbp", "truncated", "phantom"])
def test_a_penalty_differentiates_the_state_only(cls, steps, rule):
    cell, penalty = cls(), LipschitzPenalty(bound=0.0)
    drive = drive_for(cell).requires_grad_()
    if rule == "truncated":
        recurrence = Recurrence(cell, FixedSteps(4), Truncated(2), penalty)
    elif rule == "phantom":
        recurrence = Recurrence(cell, FixedSteps(4), Phantom(2, damping=1.0), penalty)
    else:
        recurrence = learning_rule(rule, cell, steps=4, bound=0.0)
    found = recurrence(drive, steps=steps).penalty
    before = iterate(cell, drive, steps - 1)
    columns = dense_jacobian(cell, drive.detach(), before).sum(dim=1)
    torch.testing.assert_close(found.detach(), columns.clamp(min=0).square().sum(), rtol=1e-10, atol=0)


class Scalar(TanhCell):
    """A state of one number a sample, N, and a tensor without elements, N x 0."""

    def initial_state(self, drive):
        return drive.new_zeros(len(drive)), drive.new_zeros(len(drive), 0)

    def forward(self, drive, state):
        return torch.tanh(0.5 * state[0] + (drive @ self.input.T).sum(dim=1)), state[1]


@pytest.mark.parametrize("rule", ["bptt", "cbptt", "crbp", "deq"])
def test_one_number_a_sample_is_a_state_and_so_is_none(rule):
    cell = Scalar()
    drive = drive_for(cell).requires_grad_()
    settings = {"num_terms": 200, "tol": 1e-12}
    state = learning_rule(rule, cell, steps=200, **settings)(drive).state
    (h,) = iterate(cell, drive, 300)[:1]
    torch.testing.assert_close(state[0], h, rtol=0, atol=1e-10)
    slope = 1 - h**2
    truth = (slope / (1 - 0.5 * slope))[:, None] * cell.input.detach().sum(dim=0)
    (found,) = torch.autograd.grad(state[0].sum(), drive)
    torch.testing.assert_close(found, truth, rtol=0, atol=1e-9)
    with torch.no_grad():
        early = learning_rule("rbp", cell, steps=200, early_stop=1e-9).eval()(drive).state[0]
    torch.testing.assert_close(early, h, rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    "initial,named",
    [
        (lambda z: (z.new_zeros(()),), "a scalar"),
        (lambda z: (torch.zeros_like(z), z.new_zeros(1, 5)), "3 x 5, 1 x 5"),
        (lambda z: (z[:2],), "2 x 5"),
        (lambda z: (None,), "a tuple that holds NoneType"),
        (lambda z: [], "an empty list"),
    ],
)
@pytest.mark.parametrize("rule", ["bptt", "crbp", "deq"])
def test_states_of_other_samples_are_named_with_their_cell(rule, initial, named):
    class Odd(TanhCell):
        def initial_state(self, drive):
            return initial(drive)

    cell = Odd()
    with pytest.raises(ValueError, match=f"Odd .*{named}"):
        learning_rule(rule, cell, steps=3)(drive_for(cell))


@pytest.mark.parametrize("drive", [None, [1.0], {"z": 1}], ids=str)
@pytest.mark.parametrize("rule", ["bptt", "crbp"])
def test_a_drive_that_is_no_tensor_is_named(rule, drive):
    with pytest.raises(ValueError, match=f"drive must be a tensor.*{type(drive).__name__}"):
        learning_rule(rule, TanhCell(), steps=3)(drive)


@pytest.mark.parametrize("steps", [0, -1, 1.5])
def test_there_is_no_state_after_no_steps(steps):
    cell = TanhCell()
    output = learning_rule("bptt", cell, steps=3)(drive_for(cell), record=True)
    with pytest.raises(ValueError, match=f"steps is {steps}"):
        output.after(steps)


@pytest.mark.parametrize("rule", ["bptt", "tbptt", "rbp", "crbp", "deq", "phantom"])
def test_a_state_may_be_written_into_whatever_the_rule(rule):
    class Affine(TanhCell):
        # No tensor of the last operation is needed in the backward pass.
        def forward(self, drive, state):
            return (super().forward(drive, state)[0] + 0.1,)

    cell = Affine()
    found = []
    for write in (torch.mul, torch.Tensor.mul_):
        drive = drive_for(cell).requires_grad_()
        state = learning_rule(rule, cell, steps=20)(drive).state[0]
        found.append(gradients(cell, drive, loss_of((write(state, 2.0),))))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-14)


@pytest.mark.parametrize("part", [2.5, "tanh", None, True, [3]], ids=repr)
def test_parts_that_are_none_are_named(part):
    with pytest.raises(TypeError, match="cell must have the methods"):
        Recurrence(part, FixedSteps(3), Truncated(2))
    with pytest.raises(TypeError, match="EarlyExit: solver must be a solver"):
        EarlyExit(part)
    if part is not None:
        with pytest.raises(TypeError, match="penalty must be a function"):
            Recurrence(TanhCell(), FixedSteps(3), Truncated(2), part)
    calls = {
        "rule": lambda: learning_rule(part, TanhCell(), steps=3),
        "penalty": lambda: learning_rule("crbp", TanhCell(), steps=3, penalty=part),
        "norm": lambda: HGRUCell(4, 3, norm=part),
    }
    for name, call in calls.items():
        with pytest.raises(SettingError, match=f"{name} is"):
            call()
