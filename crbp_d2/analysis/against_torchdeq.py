"""The implicit gradient against torchdeq's (extra `deq`), at equal tolerance."""

import warnings
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from crbp_d2.recurrence import Anderson, Implicit, Recurrence, UnconvergedWarning

from .page import markdown_table
from .training_step import Problem, converged_gradient, gradient_of, relative_error, time_interleaved

# torchdeq remembers 6 points, that is 5 differences.
MEMORY, MAX_STEPS = 5, 60


def compare_with_torchdeq(problem: Problem, tolerances: list[float], repeats: int) -> list[list[str]]:
    """Rows of `torchdeq_section`. Both solve by Anderson acceleration with the same memory, forward and transposed."""
    rows, truth = [], converged_gradient(replace(problem, weight=0.0))
    for tol in tolerances:
        ours, theirs = _ours(problem, tol), _torchdeq(problem, tol)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnconvergedWarning)
            errors = [relative_error(step(), truth) for step in (theirs, ours)]
            times = time_interleaved({"torchdeq": theirs, "crbp_d2": ours}, repeats)
        rows.append([f"{tol:g}", *(f"{seconds:.3f}" for seconds, _ in times.values()), f"{times['crbp_d2'][1]:.2f}",
                     *(f"{error:.3f}" for error in errors)])  # fmt: skip
    return rows


def _ours(problem: Problem, tol: float) -> Callable[[], Tensor]:
    solver = Anderson(memory=MEMORY, tol=tol, max_steps=MAX_STEPS)
    recurrence = Recurrence(problem.cell, solver, Implicit(solver))
    return lambda: _step(problem, lambda: recurrence(problem.drive).state[0])


def _torchdeq(problem: Problem, tol: float) -> Callable[[], Tensor]:
    from torchdeq import get_deq

    deq = get_deq(
        ift=True, f_solver="anderson", b_solver="anderson", f_tol=tol, b_tol=tol, f_stop_mode="rel", b_stop_mode="rel",
        f_max_iter=MAX_STEPS, b_max_iter=MAX_STEPS,
    )  # fmt: skip

    def state() -> Tensor:
        points, _ = deq(lambda h: problem.cell(problem.drive, (h,))[0], torch.zeros_like(problem.drive))
        return points[-1]

    return lambda: _step(problem, state)


def _step(problem: Problem, state: Callable[[], Tensor]) -> Tensor:
    return gradient_of(problem.cell, lambda: problem.loss(state(), torch.zeros(())).backward())


def torchdeq_section(rows: list[list[str]], repeats: int) -> str:
    """Markdown of what `compare_with_torchdeq` returns."""
    headers = ["tolerance", "torchdeq, seconds", "crbp_d2, seconds", "times as fast", "torchdeq, gradient error",
               "crbp_d2, gradient error"]  # fmt: skip
    return (
        "A training step of the mask head's cell under an implicit gradient without penalty. Both solve by Anderson\n"
        f"acceleration with {MEMORY} earlier differences to the same residual, or in {MAX_STEPS} evaluations.\n"
        f"Medians of {repeats} rounds in turn.\n\n" + markdown_table(headers, rows)
    )
