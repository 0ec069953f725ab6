"""The comparisons of training steps: the ways compute the same, and the truth is the truth."""

from dataclasses import replace

import pytest
import torch
from problems import TanhCell, dense_jacobian, drive_for, flat, push

from crbp_d2.analysis.against_torchdeq import compare_with_torchdeq, torchdeq_section
from crbp_d2.analysis.training_step import (
    Problem,
    compare_steps,
    converged_gradient,
    gradient_of,
    mask_problem,
    pathfinder_problem,
    plain_step,
    recurrence_step,
    relative_error,
    steps_section,
    time_interleaved,
)
from crbp_d2.recurrence import Anderson


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
    monkeypatch.setattr("crbp_d2.analysis.training_step.time.perf_counter", lambda: next(clock))
    assert time_interleaved({"a": lambda: None, "b": lambda: None}, 3) == {"a": (4, 1.0), "b": (1, 3.0)}


def test_sections():
    problem = mask_problem(1, 8, 4)
    rows = compare_steps(problem, problem, {"solver": "Anderson", "max_steps": 7, "num_terms": 3}, repeats=1)
    assert [row[1:4] for row in rows] == [
        ["plain reference", "20", "15"], ["crbp", "20", "15"], ["crbp, accelerated", "7", "3"]
    ]  # fmt: skip
    assert rows[0][5] == "1.00" and float(rows[0][6]) == pytest.approx(float(rows[1][6]), abs=0.002)
    assert "| mask cell" in steps_section(rows, 1)
    (row,) = compare_with_torchdeq(problem, [1e-3], repeats=1)
    assert row[0] == "0.001" and max(float(error) for error in row[4:]) < 1
    assert "torchdeq, gradient error" in torchdeq_section([row], 1)
