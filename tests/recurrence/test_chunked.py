"""Training in chunks of samples: the same values, gradients and statistics, less held."""

import weakref

import pytest
import torch
from helpers.problems import TanhCell, drive_for, gradients, loss_of
from torch import nn

from crbp_d2.cells import GalaHGRUCell, HGRUCell
from crbp_d2.recurrence import Chunked, FixedSteps, Implicit, NeumannSeries, Recurrence, Unrolled, learning_rule
from crbp_d2.utils.errors import ContradictionError, SettingError

RULES = [
    ("crbp", {"reduction": "sum"}),
    ("crbp", {"reduction": "mean"}),
    ("crbp", {"reduction": "sum", "neumann_tol": 1e-2}),
    ("crbp", {"solver": "Anderson", "tol": 1e-9, "max_steps": 30}),
    ("rbp", {}),
]


def outcome(cell, drive, rule, chunk_size, settings):
    recurrence = learning_rule(rule, cell, steps=30, bound=0.0, chunk_size=chunk_size, **settings)
    output = recurrence(drive)
    reported = []
    output.stats.on_backward = reported.append
    found = gradients(cell, drive, loss_of(output.state) + 3 * output.penalty)
    assert reported == [output.stats] == [recurrence.last_stats]
    return output, found


@pytest.mark.parametrize("chunk_size", [1, 2, 3])
@pytest.mark.parametrize("rule,settings", RULES)
def test_the_same_values_gradients_and_statistics(problem, rule, settings, chunk_size):
    cell, _ = problem
    drive = drive_for(cell, samples=5).requires_grad_()
    whole, truth = outcome(cell, drive, rule, 0, settings)
    chunked, found = outcome(cell, drive, rule, chunk_size, settings)
    for a, b in zip((*chunked.state, chunked.penalty, *found), (*whole.state, whole.penalty, *truth), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
    for ours, theirs in ((chunked.stats, whole.stats), (chunked.stats.transpose, whole.stats.transpose)):
        for name in ("sample_steps", "converged", "nonfinite_step", "growing"):
            a, b = getattr(ours, name), getattr(theirs, name)
            assert a is b is None or torch.equal(a, b), name
        torch.testing.assert_close(ours.residual, theirs.residual)
        assert ours.steps == theirs.steps


def test_a_cell_of_the_mask_head_in_float32():
    torch.manual_seed(0)
    cell, drive = GalaHGRUCell(8), torch.randn(5, 8, 6, 6, requires_grad=True)
    _, truth = outcome(cell, drive, "crbp", 0, {"reduction": "sum"})
    _, found = outcome(cell, drive, "crbp", 2, {"reduction": "sum"})
    for a, b in zip(found, truth, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


class Held(torch.autograd.Function):
    """Identity; `alive` has an entry for as long as the graph that it is part of."""

    alive: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()

    class Token:
        pass

    @staticmethod
    def forward(ctx, x):
        ctx.token = Held.Token()
        Held.alive[ctx.token] = len(x)
        return x.view_as(x)

    @staticmethod
    def backward(ctx, g):
        return g


@pytest.mark.parametrize("chunk_size,expected", [(0, 8), (2, 2), (3, 3)])
def test_one_chunk_is_held_at_a_time(chunk_size, expected):
    held = []

    class Watched(TanhCell):
        def forward(self, drive, state):
            (new,) = super().forward(drive, state)
            if torch.is_grad_enabled():
                new = Held.apply(new)
                held.append(sum(Held.alive.values()))
            return (new,)

    cell = Watched()
    outcome(cell, drive_for(cell, samples=8).requires_grad_(), "crbp", chunk_size, {})
    assert max(held) == expected


class Dropping(TanhCell):
    """Drops states, or (DropConnect) weights."""

    def __init__(self, weights):
        super().__init__()
        self.weights = weights
        self.seen = []

    def forward(self, drive, state):
        (h,) = state
        weight = nn.functional.dropout(self.weight, 0.3) if self.weights else self.weight
        kept = torch.ones_like(h) if self.weights else nn.functional.dropout(torch.ones_like(h), 0.3)
        self.seen.append((weight.detach() / self.weight.detach(), kept, h.detach()))
        return (torch.tanh(h @ weight.T + drive @ self.input.T) * kept,)


@pytest.mark.parametrize("weights", [False, True])
def test_the_repeated_step_draws_the_numbers_of_the_first(weights):
    cell = Dropping(weights)
    drive = drive_for(cell, samples=5).requires_grad_()
    state = learning_rule("rbp", cell, steps=6, num_terms=0, chunk_size=2)(drive).state[0]
    last = cell.seen[5::6][:3]  # of each chunk
    before = torch.get_rng_state()
    found = gradients(cell, drive, loss_of((state,)))
    assert torch.equal(torch.get_rng_state(), before)
    parts = []
    for (mask, kept, h), z in zip(last, drive.split(2), strict=True):
        parts.append(torch.tanh(h @ (cell.weight * mask).T + z @ cell.input.T) * kept)
    whole = torch.cat(parts)
    torch.testing.assert_close(state, whole, rtol=0, atol=1e-15)
    for a, b in zip(found, gradients(cell, drive, loss_of((whole,))), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("size", [1, 2])
def test_the_contraction_penalty_of_a_chunk_is_that_of_its_samples_alone(reduction, size):
    cell = TanhCell(rate=1.5)
    drive = drive_for(cell, samples=4).requires_grad_()
    settings = {"steps": 6, "penalty": "Contraction", "bound": 0.1, "reduction": reduction, "power_iterations": 1}
    torch.manual_seed(3)
    penalty = learning_rule("crbp", cell, chunk_size=size, **settings)(drive).penalty
    torch.randn(7)  # other draws between the passes
    found = gradients(cell, drive, penalty)
    torch.manual_seed(3)
    alone = [learning_rule("crbp", cell, **settings)(part).penalty for part in drive.split(size)]
    truth = torch.stack(alone).mean() if reduction == "mean" else torch.stack(alone).sum()
    torch.testing.assert_close(penalty, truth, rtol=0, atol=1e-14)
    for a, b in zip(found, gradients(cell, drive, truth), strict=True):
        assert b.abs().max() > 1e-4
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_parameters_of_a_functional_call_get_their_gradients():
    cell = TanhCell()
    drive = drive_for(cell, samples=4)
    recurrence = learning_rule("rbp", cell, steps=100, num_terms=100, chunk_size=3)
    source = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    others = {name: parameter.detach() * source for name, parameter in recurrence.named_parameters()}
    state = torch.func.functional_call(recurrence, others, (drive,)).state
    (found,) = torch.autograd.grad(loss_of(state), source, retain_graph=True)
    unrolled = torch.func.functional_call(learning_rule("bptt", cell, steps=200), others, (drive,)).state
    (truth,) = torch.autograd.grad(loss_of(unrolled), source)
    torch.testing.assert_close(found, truth, rtol=1e-9, atol=0)
    assert truth.abs() > 0.1


def test_a_changed_parameter_and_a_foreign_tensor_raise():
    cell = TanhCell()
    drive = drive_for(cell, samples=4)
    output = learning_rule("rbp", cell, steps=5, chunk_size=2)(drive)
    with torch.no_grad():
        cell.weight.mul_(1.1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.state[0].sum().backward()
    cell.offset = torch.ones(5, dtype=torch.float64, requires_grad=True)
    cell.forward = lambda drive, state: (TanhCell.forward(cell, drive, state)[0] + cell.offset,)
    with pytest.raises(ValueError, match=r"Chunked .*another tensor of shape \(5,\)"):
        learning_rule("rbp", cell, steps=5, chunk_size=2)(drive)


def test_a_second_derivative_through_chunks_raises():
    cell = TanhCell()
    drive = drive_for(cell, samples=4).requires_grad_()
    state = learning_rule("rbp", cell, steps=5, chunk_size=2)(drive).state[0]
    (first,) = torch.autograd.grad(state.sum(), drive, create_graph=True)
    with pytest.raises(RuntimeError, match="second derivative"):
        torch.autograd.grad(first.square().sum(), cell.weight)


def test_small_batches_and_inference_run_at_once():
    cell = TanhCell()
    recurrence = learning_rule("crbp", cell, steps=5, chunk_size=4)
    drive = drive_for(cell, samples=4)
    assert recurrence(drive[:0]).state[0].shape[0] == 0
    with torch.no_grad():
        assert len(recurrence(drive_for(cell, samples=9), record=True).states) == 5
    recurrence(drive).penalty.backward()
    assert cell.weight.grad is not None


class Weighted:
    """A penalty that is neither a mean nor a sum over samples."""

    def __init__(self, reduction):
        self.reduction = reduction

    def __call__(self, previous, state):
        return state[0].square().sum()


def test_what_chunks_cannot_do_is_refused():
    cell, series = TanhCell(), Implicit(NeumannSeries(3))
    with pytest.raises(ContradictionError, match=r"Chunked: size is 2, but gradient is Unrolled\(\)"):
        Chunked(Unrolled(), 2)
    with pytest.raises(ContradictionError, match="size is 2, but norm is 'BatchNorm2d'"):
        Recurrence(HGRUCell(4, 3), FixedSteps(4), Chunked(series, 2))
    for size in (0, -1, 2.0, True, "2", float("nan")):
        with pytest.raises(SettingError, match=f"Chunked: size is {size!r}; allowed: whole numbers from 1"):
            Chunked(series, size)
    for penalty, given in ((Weighted("max"), "'max'"), (lambda previous, state: state[0].sum(), "<function")):
        with pytest.raises(SettingError, match=f"penalty is {given}.*`reduction` is 'mean' or 'sum'"):
            Recurrence(cell, FixedSteps(4), Chunked(series, 2), penalty)
    with pytest.raises(ContradictionError, match="supervision is 'every'"):
        Recurrence(cell, FixedSteps(4), Chunked(series, 2), supervision="every")
    assert Recurrence(cell, FixedSteps(4), Chunked(series, 2), Weighted("sum")).penalty.reduction == "sum"


def test_a_penalty_of_ones_own_is_exact_in_chunks():
    cell = TanhCell()
    drive = drive_for(cell, samples=5).requires_grad_()
    found = []
    for gradient in (Implicit(NeumannSeries(3)), Chunked(Implicit(NeumannSeries(3)), 2)):
        penalty = Recurrence(cell, FixedSteps(4), gradient, Weighted("sum"))(drive).penalty
        found.append((penalty, *gradients(cell, drive, penalty)))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-13)
