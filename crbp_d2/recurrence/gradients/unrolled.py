"""Back-propagation through time, whole and truncated."""

from __future__ import annotations

import torch

from crbp_d2.layers.cache import many_products
from crbp_d2.utils.errors import ContradictionError, check_whole
from crbp_d2.utils.tracing import refuse_transform

from ..cell_step import CellStep
from ..guards import kept_from_checkpoint
from ..interfaces import Cell, Penalty, Solver, Trajectory, Visit
from ..solution import Solution
from ..state import State
from ..supervision import Supervision


class Unrolled:
    """Back-propagation through time: autograd through every step; memory grows with their number."""

    def check(self, cell: Cell, solver: Solver, penalty: Penalty | None, supervision: Supervision) -> None:
        """Raise a ContradictionError for a solver that does not take plain steps."""
        _require_plain_steps(self, solver)

    def run(
        self,
        step: CellStep,
        state: State,
        solver: Solver,
        steps: int,
        penalty: Penalty | None = None,
        visit: Visit | None = None,
    ) -> Trajectory:
        """See Gradient."""
        if penalty is None:
            return finished(solver.solve(step, state, steps, visit), None)
        before = solver.solve(step, state, steps - 1, visit)
        # The penalty differentiates the last step alone, and in the state alone.
        with kept_from_checkpoint(), many_products():
            solution = solver.solve(step, _as_inputs(before.state), 1, visit)
        solution.stats = solution.stats.after(before.stats)
        return finished(solution, penalty)

    def __repr__(self) -> str:
        return "Unrolled()"


class Truncated:
    """Truncated back-propagation through time: autograd through the last `truncation` steps only.

    Args:
        truncation: k, at least 1 (paper: 3). A run of fewer steps is unrolled whole.

    Raises:
        SettingError: truncation < 1.
    """

    def __init__(self, truncation: int = 3):
        check_whole("Truncated", truncation=truncation)
        self.truncation = truncation

    def check(self, cell: Cell, solver: Solver, penalty: Penalty | None, supervision: Supervision) -> None:
        """Raise a ContradictionError for a solver without plain steps or with too few, or a loss on every state."""
        _require_plain_steps(self, solver)
        if supervision == "every":
            raise ContradictionError(
                {"supervision": supervision, "gradient": self},
                f"{self!r} cuts the gradient of all but the last states, which are all read; use Unrolled()",
            )
        if self.truncation > solver.steps:
            raise ContradictionError(
                {"truncation": self.truncation, "steps": solver.steps},
                "a run cannot be cut before its start; use Unrolled(), or at most as many",
                "Truncated",
            )

    def run(
        self,
        step: CellStep,
        state: State,
        solver: Solver,
        steps: int,
        penalty: Penalty | None = None,
        visit: Visit | None = None,
    ) -> Trajectory:
        """See Gradient."""
        kept = min(self.truncation, steps)
        if kept == steps or not torch.is_grad_enabled():
            return Unrolled().run(step, state, solver, steps, penalty, visit)
        with torch.no_grad():
            before = solver.solve(step, state, steps - kept, visit)
        trajectory = Unrolled().run(step, start_recording(before.state), solver, kept, penalty, visit)
        trajectory.stats = trajectory.stats.after(before.stats)
        return trajectory

    def __repr__(self) -> str:
        return f"Truncated({self.truncation})"


def finished(solution: Solution, penalty: Penalty | None) -> Trajectory:
    """A run that has ended, with its penalty where one is wanted."""
    value = None if penalty is None else penalty(solution.previous, solution.state)
    return Trajectory(solution.state, solution.stats, value)


def _as_inputs(state: State) -> State:
    """`state` as inputs of a step, to be differentiated by.

    Each is a tensor of its own: one that stands twice in a state, or is the drive as well, has several derivatives.
    """
    constant = [part for part in state if not part.requires_grad]
    refuse_transform(constant, "a penalty", "use a recurrence without one, or torch.autograd")
    return tuple(part.view_as(part) if part.requires_grad else part.detach().requires_grad_() for part in state)


def start_recording(state: State) -> State:
    """`state` as the leaf of the graph that the next steps record, if gradients are on."""
    recorded = torch.is_grad_enabled()
    if recorded:
        refuse_transform((), "a gradient that begins with a later step", "use Unrolled() without a penalty")
        # Autocast would otherwise hand the recorded steps the weights it cast without a graph.
        torch.clear_autocast_cache()
    return tuple(part.detach().requires_grad_(recorded) for part in state)


def _require_plain_steps(gradient: Unrolled | Truncated, solver: Solver) -> None:
    if solver.stops_at_tol:
        raise ContradictionError(
            {"solver": solver, "gradient": gradient},
            f"{gradient!r} differentiates plain steps, which {solver!r} does not take; use FixedSteps, or the solver "
            "with an Implicit gradient",
        )
