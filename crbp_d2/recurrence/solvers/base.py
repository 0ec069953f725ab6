"""Solvers: how the steps of a recurrence are run, forward and in the transposed problem.

A solver has

- `solve(step, state, steps=None, visit=None) -> Solution`: run at most `steps` evaluations of `step`, a
  map from one state to the next; `visit` sees the state after each. The transposed problem of an
  Implicit gradient is the same call with an AffineStep.
- `steps`: its own number of evaluations; `next_steps()`: that of a run that names none, the same but where it is drawn.
- `tol`: the residual within which a sample counts as converged.
- `stops_at_tol`: whether it stops there. If not, it is plain iteration, which can be unrolled.

Gradients are none of a solver's business.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..state import State, add, relative_change

# Residual that counts as converged where nothing else is said.
CONVERGED = 1e-3

Step = Callable[[State], State]
Visit = Callable[[State], None]


@dataclass
class SolveStats:
    """What a run reports. Per-sample tensors have N entries and carry no graph.

    steps: cell evaluations (Jacobian products in a transposed solve) of the whole batch.
    sample_steps: those until each sample was done; beyond it the sample was frozen.
    residual: ||h_T - h_{T-1}|| / ||h_T||, per sample; for a NeumannSeries the norm of its last term
        relative to the first.
    converged: residual within the tolerance of the solver, or of early stop, per sample.
    nonfinite_step: the first step whose state was not finite, counted from 1, per sample; 0: none was.
    growing: of a NeumannSeries: the terms grew, so the result is no fixed-point gradient; else None.
    transpose: of the backward solve; None until the backward pass has run, and for unrolled gradients.
    on_backward: called once with this object when `transpose` has been filled.
    """

    steps: int
    sample_steps: Tensor
    residual: Tensor
    converged: Tensor
    nonfinite_step: Tensor
    growing: Tensor | None = None
    transpose: "SolveStats | None" = None
    on_backward: Callable[["SolveStats"], None] | None = field(default=None, repr=False)


@dataclass
class Solution:
    """The end of a run.

    previous, state: its last two states, `state` the step of `previous`.
    steps: evaluations between the first state and the last.
    sample_steps: per sample, where they differ.
    residual, growing, nonfinite_step: where the solver measures them itself; see SolveStats.
    """

    previous: State
    state: State
    steps: int
    sample_steps: Tensor | None = None
    residual: Tensor | None = None
    growing: Tensor | None = None
    nonfinite_step: Tensor | None = None

    @torch.no_grad()
    def report(self, tol: float) -> SolveStats:
        """Statistics, with `tol` the residual that counts as converged."""
        residual = relative_change(self.previous, self.state) if self.residual is None else self.residual
        count = torch.zeros(len(residual), dtype=torch.long, device=residual.device)
        sample_steps = count + self.steps if self.sample_steps is None else self.sample_steps
        converged = residual <= tol
        if self.growing is not None:
            converged = converged & ~self.growing
        nonfinite_step = count if self.nonfinite_step is None else self.nonfinite_step
        return SolveStats(self.steps, sample_steps, residual, converged, nonfinite_step, self.growing)


@dataclass
class AffineStep:
    """The step u -> J^T u + g of the transposed problem; `linear` maps a state v to J^T v, `offset` is g."""

    linear: Step
    offset: State

    def __call__(self, u: State) -> State:
        return add(self.linear(u), self.offset)


class UnconvergedWarning(UserWarning):
    """A solver that stops at a tolerance used up its steps before it got there."""


def warn_unconverged(solver, stats: SolveStats, what: str) -> bool:
    """Warn if `solver` was meant to reach a tolerance and some sample did not; returns whether it warned.

    Args:
        what: the solve, for the message.
    """
    if not solver.stops_at_tol or bool(stats.converged.all()):
        return False
    missed = ~stats.converged
    warnings.warn(
        f"the {what} of {int(missed.sum())} of {len(missed)} samples did not converge: {solver!r} left a residual of "
        f"{stats.residual[missed].max().item():.3g} after {stats.steps} steps. This is said once; every run reports it "
        "in its statistics",
        UnconvergedWarning,
        stacklevel=3,
    )
    return True


def check_budget(solver: str, **settings: float) -> None:
    """Check the numbers every solver has: whole ones from 1, and `tol` in (0, 1).

    Raises:
        ValueError: names the solver, the setting and its value.
    """
    for name, value in settings.items():
        if name == "tol" and not 0 < value < 1:
            raise ValueError(f"{solver}: tol must lie in (0, 1), got {value}")
        if name != "tol" and (not value >= 1 or value % 1):
            raise ValueError(f"{solver}: {name} must be a whole number of at least 1, got {value}")
