"""Forward solvers: how the steps of a recurrence are run.

A solver has `solve(step, state, steps=None, visit=None) -> Solution` and an attribute `steps`.
`step` maps a state to the next one; gradients are none of a solver's business.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .state import State, relative_change

if TYPE_CHECKING:
    from .transpose import TransposeStats

Step = Callable[[State], State]
Visit = Callable[[State], None]


@dataclass
class SolveStats:
    """What a run reports. Per-sample tensors have N entries and carry no graph.

    steps: cell evaluations of the forward run.
    residual: ||h_T - h_{T-1}|| / ||h_T||, per sample.
    converged: residual within the solver's tolerance, per sample.
    transpose: of the backward solve; None until the backward pass has run, and for unrolled gradients.
    on_backward: called once with this object when `transpose` has been filled.
    """

    steps: int
    residual: Tensor
    converged: Tensor
    transpose: "TransposeStats | None" = None
    on_backward: Callable[["SolveStats"], None] | None = field(default=None, repr=False)


@dataclass
class Solution:
    """The last two states of a run and the number of steps between the first and the last."""

    previous: State
    state: State
    steps: int


class FixedSteps:
    """Plain iteration, `steps` times for every sample.

    Args:
        steps: number of cell evaluations, at least 1.
        tol: residual within which a sample is reported as converged; it never stops the run.

    Raises:
        ValueError: steps < 1 or tol <= 0.
    """

    def __init__(self, steps: int, tol: float = 1e-3):
        if steps < 1:
            raise ValueError(f"FixedSteps: steps must be at least 1, got {steps}")
        if not tol > 0:
            raise ValueError(f"FixedSteps: tol must be positive, got {tol}")
        self.steps = steps
        self.tol = tol

    def solve(self, step: Step, state: State, steps: int | None = None, visit: Visit | None = None) -> Solution:
        """Run `steps` steps (default: the solver's own; 0 is allowed) from `state`; `visit` sees each new state."""
        steps = self.steps if steps is None else steps
        previous = state
        for _ in range(steps):
            previous, state = state, step(state)
            if visit:
                visit(state)
        return Solution(previous, state, steps)

    @torch.no_grad()
    def report(self, solution: Solution) -> SolveStats:
        residual = relative_change(solution.previous, solution.state)
        return SolveStats(solution.steps, residual, residual <= self.tol)

    def __repr__(self) -> str:
        return f"FixedSteps({self.steps})"
