"""Comparisons of training steps: the variants compute the same, and the truth is that of a dense solve."""

from dataclasses import replace

import pytest
import torch
from helpers.problems import TanhCell, dense_jacobian, drive_for, flat, push

from crbp_d2.recurrence import Anderson, FixedSteps, Implicit, Recurrence
from crbp_d2.recurrence.diagnostics import trajectory
from crbp_d2.recurrence.state import relative_change
from tools.benchmarks.against_torchdeq import (
    OURS,
    SCALED,
    TORCHDEQ,
    compare_with_torchdeq,
    measure,
    our_state,
    torchdeq_state,
    torchdeq_table,
)
from tools.benchmarks.training_step import (
    Problem,
    compare_steps,
    converged_gradient,
    gradient_of,
    mask_problem,
    pathfinder_problem,
    plain_step,
    recurrence_step,
    relative_error,
    steps_table,
    time_interleaved,
)


@pytest.mark.parametrize("problem", [mask_problem(2, 8, 6), pathfinder_problem(2, 3, 8)], ids=lambda p: p.name)
def test_the_plain_reference_and_the_recurrence_compute_the_same(problem):
    exact = replace(problem, cell=problem.cell.double(), drive=problem.drive.double(), bound=0.0)
    found = gradient_of(exact.cell, lambda: recurrence_step(exact, exact.rule()))
    truth = gradient_of(exact.cell, lambda: plain_step(exact))
    assert truth.norm() > 0 and relative_error(found, truth) < 1e-9
    fewer = gradient_of(exact.cell, lambda: recurrence_step(exact, exact.rule(num_terms=14)))
    assert relative_error(fewer, truth) > 1e-6


def test_the_converged_gradient_is_that_of_a_dense_solve():
    cell = TanhCell()
    problem = Problem("tanh", cell, drive_for(cell), bound=0.9, reduction="mean", weight=0.0)
    state = (
        Anderson(tol=1e-13, max_steps=200)
        .solve(lambda h: cell(problem.drive, h), cell.initial_state(problem.drive))
        .state
    )
    h = state[0].detach().requires_grad_()
    (g,) = torch.autograd.grad(problem.loss(h, torch.zeros(())), h)
    identity = torch.eye(g.shape[1], dtype=g.dtype)
    u = torch.linalg.solve((identity - dense_jacobian(cell, problem.drive, state)).mT, flat((g,))[..., None])[..., 0]
    truth = torch.cat([part.flatten() for part in push(cell, problem.drive.requires_grad_(), state, u)[:2]])
    assert relative_error(converged_gradient(problem), truth) < 1e-3


def test_ratios_are_medians_of_pairs(monkeypatch):
    clock = iter([0, 4, 4, 5, 10, 12, 12, 13, 20, 26, 26, 28])
    monkeypatch.setattr("tools.benchmarks.training_step.time.perf_counter", lambda: next(clock))
    assert time_interleaved({"a": lambda: None, "b": lambda: None}, 3) == {"a": (4, 1.0), "b": (1, 3.0)}


def test_rows_of_a_step():
    problem = mask_problem(1, 8, 4)
    rows = compare_steps(problem, problem, {"solver": "Anderson", "max_steps": 7, "num_terms": 3}, repeats=1)
    variants = [["plain reference", "20", "15"], ["crbp", "20", "15"], ["crbp, accelerated", "7", "3"]]
    assert [row[1:4] for row in rows] == variants
    assert rows[0][5] == "1.00" and float(rows[0][6]) == pytest.approx(float(rows[1][6]), abs=0.002)
    assert steps_table(rows).rows == rows


def test_residuals_and_counts_of_the_solves_against_torchdeq():
    """Residuals and counts against a solve by hand, and tolerances that are kept."""
    cell = TanhCell(rate=0.9)
    problem = Problem("tanh", cell, drive_for(cell), bound=0.9, reduction="mean", weight=0.0)
    truth = converged_gradient(problem)
    for way, state_of in (
        (TORCHDEQ, torchdeq_state(1e-8)),
        (SCALED, torchdeq_state(1e-8)),
        (OURS, our_state(1e-8, 1e-8)),
    ):
        cost = measure(way, problem, state_of, (1e-8, 1e-8), truth)
        assert max(cost.residuals) < 1e-8 and cost.error < 1e-3, way
    rough = measure(OURS, problem, our_state(1e-8, 0.3), (1e-8, 0.3), truth)
    assert rough.products < cost.products and 1e-3 < rough.residuals[1] < 0.3 and rough.error > cost.error
    assert rough.evaluations == cost.evaluations
    parts = FixedSteps(4), Implicit(FixedSteps(3))
    counted = measure(OURS, problem, lambda cell, drive: Recurrence(cell, *parts)(drive).state[0], (0, 0), truth)
    assert (counted.evaluations, counted.products) == (4, 3)
    h = trajectory(cell, problem.drive, 4)
    assert counted.residuals[0] == pytest.approx(relative_change(h[3], h[4]).max().item(), rel=1e-9)


def test_comparison_with_torchdeq():
    problem = mask_problem(1, 8, 4)
    comparison = compare_with_torchdeq(problem, [1e-2], repeats=1)
    assert [cost.way for cost in comparison.same_tolerance] == [TORCHDEQ, SCALED, OURS]
    for theirs, ours in comparison.same_error:
        assert ours.error <= theirs.error == min(cost.error for cost in comparison.same_tolerance[:2])
    assert comparison.same_tolerance[0].ratio == 1 and all(cost.seconds > 0 for cost in comparison.same_tolerance)
    assert torchdeq_table(comparison.same_tolerance).rows[1][:2] == [SCALED, "0.01 / 0.01"]
