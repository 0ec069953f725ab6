"""Plain iteration."""

from torch import Tensor

from ..interfaces import Solution, Step, Visit
from ..state import State, total
from .base import CONVERGED, AnyCell, check_budget


class FixedSteps(AnyCell):
    """Plain iteration, `steps` times for every sample.

    Args:
        steps: number of cell evaluations, at least 1.
        tol: residual within which a sample is reported as converged; it never stops the run.

    Raises:
        SettingError: steps < 1, tol outside (0, 1).
    """

    stops_at_tol = False

    def __init__(self, steps: int, tol: float = CONVERGED):
        check_budget("FixedSteps", steps=steps, tol=tol)
        self.steps = steps
        self.tol = tol

    def next_steps(self) -> int:
        """Steps of a training run."""
        return self.steps

    def solve(self, step: Step, state: State, steps: int | None = None, visit: Visit | None = None) -> Solution:
        """Run `steps` steps (default: the solver's own; 0 is allowed) from `state`; `visit` sees each new state."""
        previous = state
        sums: list[Tensor] = []
        for _ in range(self.steps if steps is None else steps):
            previous, state = state, step(state)
            sums.append(total(state))
            if visit:
                visit(state)
        return Solution.of_steps(previous, state, sums, self.tol)

    def __repr__(self) -> str:
        return f"FixedSteps({self.steps})"
