"""Training in chunks of samples: the same values, gradients and statistics, less held."""

import weakref

import pytest
import torch
from helpers.problems import TanhCell, drive_for, gradients, loss_of
from torch import nn

from crbp_d2.cells import GalaHGRUCell, HGRUCell
from crbp_d2.recurrence import Anderson, Implicit, NeumannSeries, Recurrence, Unrolled, learning_rule

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


def test_small_batches_and_inference_run_at_once():
    cell = TanhCell()
    recurrence = learning_rule("crbp", cell, steps=5, chunk_size=4)
    drive = drive_for(cell, samples=4)
    assert recurrence(drive[:0]).state[0].shape[0] == 0
    with torch.no_grad():
        assert len(recurrence(drive_for(cell, samples=9), record=True).states) == 5
    recurrence(drive).penalty.backward()
    assert cell.weight.grad is not None


def test_what_chunks_cannot_do_is_refused():
    cell, series = TanhCell(), Implicit(NeumannSeries(3))
    solver = Anderson()
    with pytest.raises(ValueError, match=r"chunk_size bounds what an Implicit gradient holds; Unrolled\(\) holds"):
        learning_rule("bptt", cell, steps=4, chunk_size=2)
    with pytest.raises(ValueError, match="chunk_size changes the batch that a batch norm"):
        learning_rule("crbp", HGRUCell(4, 3), steps=4, chunk_size=2)
    with pytest.raises(ValueError, match="chunk_size must be a whole number from 1, or 0 for all, got -1"):
        Recurrence(cell, solver, series, chunk_size=-1)
    with pytest.raises(ValueError, match="chunk_size needs a penalty whose attribute `reduction`"):
        Recurrence(cell, solver, series, lambda previous, state: state[0].sum(), chunk_size=2)
    assert isinstance(Recurrence(nn.Identity(), learning_rule("bptt", cell, 2).solver, Unrolled()), Recurrence)
