"""Inference in which every sample stops by itself.

N: samples of the batch.
"""

from typing import Any

import torch
from torch import Tensor, nn

from crbp_d2.utils.errors import ContradictionError, check_number
from crbp_d2.utils.tracing import refuse_export, refuse_transform

from ..cell_step import check_samples_apart
from ..interfaces import Cell, Solver, Step, Visit
from ..solution import Solution, SolveStats
from ..state import State, relative_change


class EarlyExit(nn.Module):
    """Plain steps of another solver; in inference a sample leaves the batch once its residual is within `tol`.

    The residual is ||h_t - h_{t-1}|| / ||h_t||. Steps are taken with the samples that are left, so those that have
    stopped cost nothing, and what a sample gets does not depend on the others. One that turns non-finite takes all
    steps. In training, and wherever gradients are on, every sample takes all steps. Checkpoints are those of the
    solver within.

    Args:
        solver: FixedSteps or RandomSteps, or another that is plain iteration.
        tol: residual at which a sample is done, the attribute `exit_tol`; `tol` stays that of the solver within.

    Raises:
        TypeError: a solver that is none.
        SettingError: tol outside (0, 1).
        ContradictionError: a solver that stops at a tolerance by itself; (with a cell) a batch norm.
    """

    stops_at_tol = False

    def __init__(self, solver: Solver, tol: float = 3e-3):
        super().__init__()
        check_number("EarlyExit", "(0, 1)", tol=tol)
        if not isinstance(solver, Solver):
            raise TypeError(f"EarlyExit: solver must be a solver, got {solver!r}")
        if solver.stops_at_tol:
            raise ContradictionError(
                {"tol": tol, "solver": solver},
                f"{solver!r} stops every sample at a tolerance by itself; use FixedSteps, or no early exit",
                "EarlyExit",
            )
        self.solver: Any = solver
        self.exit_tol = tol

    @property
    def steps(self) -> int:
        """Those of the solver within."""
        return self.solver.steps

    @property
    def tol(self) -> float:
        """Residual within which a sample counts as converged where all steps are taken."""
        return self.solver.tol

    def next_steps(self) -> int:
        """The number of steps (in inference: at most) of a run that names none."""
        return self.solver.next_steps()

    def check(self, cell: Cell) -> None:
        """Raise a ContradictionError for a cell that mixes the samples of a batch."""
        self.solver.check(cell)
        check_samples_apart(cell, "EarlyExit", tol=self.exit_tol)

    def solve(self, step: Step, state: State, steps: int | None = None, visit: Visit | None = None) -> Solution:
        """At most `steps` steps; `visit` sees the state of all N samples after each, that of a stopped one repeated."""
        most = self.next_steps() if steps is None else steps
        if not step.inference or not most:
            return self.solver.solve(step, state, most, visit)
        refuse_export(state[0], repr(self), "use the solver within it")
        residual = relative_change(state, state)
        samples = torch.arange(len(residual), device=residual.device)
        sample_steps, nonfinite_step = torch.zeros_like(samples), torch.zeros_like(samples)
        # Written to as samples stop.
        last, last_previous = (tuple(part.clone() for part in state) for _ in range(2))
        for taken in range(1, most + 1):
            solution = self.solver.solve(step, state, 1)
            state, change = solution.state, solution.stats.residual
            refuse_transform(state, repr(self), "use the solver within it")
            first_lost = (solution.stats.nonfinite_step > 0) & (nonfinite_step[samples] == 0)
            nonfinite_step[samples[first_lost]] = taken
            if visit:
                visit(tuple(whole.index_copy(0, samples, part) for whole, part in zip(last, state, strict=True)))
            stops = self.stops(taken, samples, change) | (taken == most)
            if stops.any():
                stopped = samples[stops]
                for whole, part in zip(last + last_previous, state + solution.previous, strict=True):
                    whole[stopped] = part[stops]
                sample_steps[stopped] = taken
                residual[stopped] = change[stops]
                samples, state = samples[~stops], tuple(part[~stops] for part in state)
                step = step.subset(torch.nonzero(~stops).flatten())
            if not len(samples):
                break
        stats = SolveStats(taken, sample_steps, residual, residual <= self.exit_tol, nonfinite_step)
        return Solution(last_previous, last, stats)

    def stops(self, taken: int, samples: Tensor, residual: Tensor) -> Tensor:
        """Which of the samples that are left (their indices) leave after `taken` steps with these residuals."""
        return residual <= self.exit_tol  # false for NaN

    # A checkpoint must load with and without early exit, so the solver within has the keys it would have alone.

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:  # type: ignore[override]
        """That of the solver within, {} of one without any state."""
        if isinstance(self.solver, nn.Module):
            return self.solver.state_dict(*args, **kwargs)
        return super().state_dict(*args, **kwargs)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for key in [key for key in state_dict if key.startswith(prefix)]:
            state_dict[f"{prefix}solver.{key.removeprefix(prefix)}"] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def __repr__(self) -> str:
        return f"EarlyExit({self.solver!r}, tol={self.exit_tol})"
