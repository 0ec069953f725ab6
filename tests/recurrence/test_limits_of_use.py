"""Uses at the edge: second derivatives, frozen recurrences, scales, odd states, failed solves, copies of a model."""

import copy
import io
import pickle

import pytest
import torch
from helpers.problems import LinearCell, TanhCell, dense_jacobian, drive_for, flat, gradients, iterate, loss_of, push
from torch import nn

from crbp_d2.evaluation import record_states
from crbp_d2.recurrence import (
    Anderson,
    Broyden,
    FixedSteps,
    Implicit,
    NeumannSeries,
    Recurrence,
    Truncated,
    learning_rule,
)
from crbp_d2.recurrence.state import relative_change, sample_norm

SERIES = {"neumann": NeumannSeries(60), "anderson": Anderson(tol=1e-9, max_steps=60)}


@pytest.mark.parametrize("rule", ["rbp", "crbp", "deq"])
@pytest.mark.parametrize("loss", [lambda h: h.sum(), lambda h: h.sin().sum()], ids=["linear", "nonlinear"])
def test_a_second_derivative_through_an_implicit_gradient_raises(rule, loss):
    cell = TanhCell()
    drive = drive_for(cell).requires_grad_()
    output = learning_rule(rule, cell, steps=60, tol=1e-9)(drive)
    (first,) = torch.autograd.grad(loss(output.state[0]), drive, create_graph=True)
    with pytest.raises(RuntimeError, match=r"second derivative.*Unrolled\(\)"):
        torch.autograd.grad(first.square().sum(), cell.weight)


def test_hessian_and_forward_mode_raise_or_are_exact():
    cell = TanhCell(size=3)
    drive = drive_for(cell, samples=1)
    implicit, unrolled = learning_rule("rbp", cell, steps=30), learning_rule("bptt", cell, steps=30)
    with pytest.raises(RuntimeError, match="second derivative"):
        torch.autograd.functional.hessian(lambda z: implicit(z).state[0].sum(), drive)
    with pytest.raises(RuntimeError), torch.autograd.forward_ad.dual_level():
        implicit(torch.autograd.forward_ad.make_dual(drive, torch.ones_like(drive)))
    assert torch.autograd.gradgradcheck(lambda z: unrolled(z).state[0], drive.requires_grad_())


def test_a_graph_kept_for_more_is_still_differentiated_once():
    cell = TanhCell()
    drive = drive_for(cell).requires_grad_()
    recurrence = learning_rule("rbp", cell, steps=30)
    plain = gradients(cell, drive, loss_of(recurrence(drive).state))
    kept = torch.autograd.grad(loss_of(recurrence(drive).state), [*cell.parameters(), drive], create_graph=True)
    assert all(torch.equal(a, b) for a, b in zip(plain, kept, strict=True))


@pytest.mark.parametrize("rule", ["rbp", "crbp", "deq"])
def test_a_frozen_recurrence_runs_no_backward_solve(rule):
    class Counting(TanhCell):
        products = 0

        def forward(self, drive, state):
            (h,) = super().forward(drive, state)
            if h.requires_grad:
                h.register_hook(lambda g: setattr(self, "products", self.products + 1))
            return (h,)

    cell = Counting().requires_grad_(False)
    readout = nn.Linear(5, 1).double()
    output = learning_rule(rule, cell, steps=20)(drive_for(cell))
    readout(output.state[0]).sum().backward()
    assert output.stats.transpose is None and readout.weight.grad.any()
    assert cell.products == (1 if rule == "crbp" else 0)  # the penalty's own
    cell.products = 0
    drive = drive_for(cell).requires_grad_()
    learning_rule(rule, cell, steps=20)(drive).state[0].sum().backward()
    assert drive.grad.any() and cell.products > 1


@pytest.mark.parametrize("scale", [1e-30, 1e-22, 1e-19, 1.0, 1e19, 1e30])
def test_norms_are_right_at_every_scale_of_float32(scale):
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0], [1.0, 0.0]]) * scale
    truth = torch.tensor([5.0, 0.0, 1.0], dtype=torch.float64) * scale
    torch.testing.assert_close(sample_norm((x,)), truth, rtol=1e-6, atol=0)
    torch.testing.assert_close(sample_norm((x[:, :1], x[:, 1:])), sample_norm((x,)), rtol=1e-6, atol=0)
    change = relative_change((x,), (1.5 * x,))
    torch.testing.assert_close(change.float(), torch.tensor([1 / 3, 0.0, 1 / 3]), rtol=1e-5, atol=0)


@pytest.mark.parametrize("transpose", [NeumannSeries(200, tol=1e-6), Anderson(tol=1e-6), Broyden(tol=1e-6)], ids=repr)
@pytest.mark.parametrize("scale", [1e-25, 1e-20, 1e16, 1e25])
def test_the_scale_of_a_loss_decides_nothing(transpose, scale):
    cell = TanhCell(rate=0.9).float()
    transpose = copy.deepcopy(transpose)
    if hasattr(transpose, "memory"):
        transpose.steps = 100
    drive = drive_for(cell).float().requires_grad_()
    state = Recurrence(cell, FixedSteps(100), Implicit(transpose))(drive).state[0]
    found = torch.autograd.grad(state, [cell.weight, drive], torch.full_like(state, scale))
    double = TanhCell(rate=0.9)
    exact = drive.detach().double().requires_grad_()
    at = iterate(double, exact, 500)
    identity = torch.eye(5, dtype=torch.float64)
    u = torch.linalg.solve(identity - dense_jacobian(double, exact, at).mT, torch.ones(3, 5, 1, dtype=torch.float64))
    for ours, truth in zip(found, [push(double, exact, at, u[..., 0])[k] for k in (0, 2)], strict=True):
        torch.testing.assert_close(ours.double() / scale, truth, rtol=1e-3, atol=1e-4 * truth.abs().max().item())


@pytest.mark.parametrize("solver", [Anderson(), Broyden(), Anderson(max_steps=1)], ids=repr)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nonfinite_first_evaluation_has_not_converged(solver, value):
    start = torch.ones(2, 3, dtype=torch.float64)
    lost = torch.tensor([[value], [0.5]], dtype=torch.float64)
    stats = solver.solve(lambda h: (lost * h[0],), (start,)).stats
    assert not stats.converged[0] and not stats.residual[0] <= 1
    assert stats.nonfinite_step.tolist() == [1, 0]


class DrivenCell(TanhCell):
    """(h, c), where c is set from the drive without a graph."""

    def initial_state(self, drive):
        return torch.zeros_like(drive), torch.zeros_like(drive)

    def forward(self, drive, state):
        h, c = state
        return torch.tanh(h @ self.weight.T + 0.1 * c + drive), 2 * drive.detach()


@pytest.mark.parametrize("rule, penalty", [("rbp", ""), ("crbp", "Lipschitz"), ("crbp", "Contraction"), ("deq", "")])
def test_a_tensor_of_the_state_without_a_graph_is_a_constant(rule, penalty):
    cell = DrivenCell()
    drive = drive_for(cell)
    settings = {"penalty": penalty, "num_terms": 200, "tol": 1e-12}
    output = learning_rule(rule, cell, steps=200, **settings)(drive)
    (found,) = torch.autograd.grad(loss_of(output.state[:1]) + 0 * output.penalty, cell.weight)
    state = cell.initial_state(drive)
    for _ in range(300):
        state = cell(drive, state)
    (truth,) = torch.autograd.grad(loss_of(state[:1]), cell.weight)
    torch.testing.assert_close(found, truth, rtol=0, atol=1e-9)


class WritingCell(LinearCell):
    """h' = h / 2 + z, written into h."""

    def forward(self, drive, state):
        (h,) = state
        return (h.mul_(0.5).add_(drive),)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("settings", [{"solver": "Anderson", "tol": 1e-8}, {"early_stop": 1e-6}, {}], ids=str)
def test_a_cell_that_writes_into_its_state_gets_copies(settings, mode):
    cell = WritingCell(torch.eye(3, dtype=torch.float64))
    drive = drive_for(cell)
    start = torch.ones_like(drive)
    with mode():
        output = learning_rule("rbp", cell, steps=60, **settings).eval()(drive, state=(start,))
    torch.testing.assert_close(output.state[0], 2 * drive, rtol=1e-4, atol=0)
    assert output.stats.converged.all() and torch.equal(start, torch.ones_like(start))


@pytest.mark.parametrize("rule", ["bptt", "tbptt", "rbp", "crbp"])
def test_a_cell_that_writes_into_its_state_is_differentiated(rule):
    class Mixing(TanhCell):
        def forward(self, drive, state):
            (h,) = state
            return super().forward(drive, (h.mul_(1.0),))

    found, truth = [], []
    for cls, into in ((Mixing, found), (TanhCell, truth)):
        cell = cls()
        drive = drive_for(cell).requires_grad_()
        into.extend(gradients(cell, drive, loss_of(learning_rule(rule, cell, steps=6)(drive).state)))
    for a, b in zip(found, truth, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "state,named",
    [
        (lambda h: h, "Tensor"),
        (lambda h: (h.long(),), "int64"),
        (lambda h: (h, h > 0), "bool"),
        (lambda h: (h.to(torch.complex64),), "complex64"),
        (lambda h: {"h": h}, "dict"),
        (lambda h: (), "tuple"),
        (lambda h: None, "NoneType"),
    ],
)
def test_states_that_are_none_are_named_with_their_cell(state, named):
    class Odd(TanhCell):
        def forward(self, drive, given):
            return state(super().forward(drive, given)[0])

    with pytest.raises(ValueError, match=rf"Odd.*{named}"):
        learning_rule("bptt", Odd(), steps=2)(torch.zeros(2, 5, dtype=torch.float64))


def test_a_list_is_a_state_and_one_tensor_may_be_two():
    class Listing(TanhCell):
        def initial_state(self, drive):
            zero = torch.zeros_like(drive)
            return [zero, zero]

        def forward(self, drive, state):
            (h,) = super().forward(drive, state[:1])
            return [h, h]

    cell = Listing()
    drive = drive_for(cell).requires_grad_()
    output = learning_rule("rbp", cell, steps=80, num_terms=80)(drive)
    plain = learning_rule("rbp", TanhCell(), steps=80, num_terms=80)
    (found,) = torch.autograd.grad(flat(output.state).sum(), drive)
    (truth,) = torch.autograd.grad(2 * plain(drive).state[0].sum(), drive)
    torch.testing.assert_close(found, truth, rtol=0, atol=1e-9)


@pytest.mark.parametrize("value", [2.5, float("nan"), float("inf"), -1])
@pytest.mark.parametrize("make", [FixedSteps, Truncated, NeumannSeries, lambda n: Anderson(memory=n)])
def test_counts_are_whole_numbers(make, value):
    with pytest.raises(ValueError, match="whole numbers"):
        make(value)


@pytest.mark.parametrize("rule", ["bptt", "crbp", "deq"])
def test_models_are_copied_and_stored_around_a_step(rule):
    recurrence = learning_rule(rule, TanhCell(), steps=5)
    drive = drive_for(recurrence.cell)
    for _ in range(2):
        for clone in (
            copy.deepcopy(recurrence),
            pickle.loads(pickle.dumps(recurrence)),
            torch.load(io.BytesIO(_stored(recurrence)), weights_only=False),
        ):
            assert torch.equal(clone(drive).state[0], recurrence(drive).state[0])
        output = recurrence(drive)
        output.stats.on_backward = lambda stats: None
        (output.state[0].sum() + output.penalty).backward()
        assert recurrence.last_stats is output.stats


def _stored(module: nn.Module) -> bytes:
    file = io.BytesIO()
    torch.save(module, file)
    return file.getvalue()


def test_a_copy_made_while_recording_is_independent():
    recurrence = learning_rule("crbp", TanhCell(), steps=5)
    drive = drive_for(recurrence.cell)
    with record_states(recurrence) as run:
        recurrence(drive)
        for clone in (copy.deepcopy(recurrence), pickle.loads(pickle.dumps(recurrence))):
            with torch.no_grad():
                clone.cell.weight.zero_()
            expected = torch.tanh(drive @ recurrence.cell.input.T)
            torch.testing.assert_close(clone(drive).state[0], expected, rtol=0, atol=1e-12)
        assert len(run.outputs) == 1
