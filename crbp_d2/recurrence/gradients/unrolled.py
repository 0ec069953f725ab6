"""Back-propagation through time, complete and truncated."""

import torch

from crbp_d2.layers.cache import many_products
from crbp_d2.utils.errors import ContradictionError, check_whole
from crbp_d2.utils.tracing import refuse_transform

from ..guards import kept_from_checkpoint, start_recording
from ..interfaces import Cell, Gradient, Penalty, Run, Solution, Solver
from ..state import State
from ..supervision import Supervision


class Unrolled:
    """Back-propagation through time: autograd through every step; memory grows with their number."""

    def check(self, cell: Cell, solver: Solver, penalty: Penalty | None, supervision: Supervision) -> None:
        """Raise a ContradictionError for a solver that does not take plain steps."""
        _require_plain_steps(self, solver)

    def run(self, run: Run) -> Solution:
        """See Gradient."""
        if run.penalty is None:
            return run.first(run.steps)
        before = run.first(run.steps - 1)
        last = run.rest(before, _as_inputs(before.state))
        # The penalty differentiates the last step only, and only in the state.
        with kept_from_checkpoint(), many_products():
            solution = last.first(1).after(before)
        solution.penalty = run.penalty(solution.previous, solution.state)
        return solution

    def __repr__(self) -> str:
        return "Unrolled()"


class Truncated:
    """Truncated back-propagation through time: autograd through the last `truncation` steps only.

    Args:
        truncation: k, at least 1 (paper: 3). A run of at most k steps is unrolled completely.

    Raises:
        SettingError: truncation < 1.
    """

    def __init__(self, truncation: int = 3):
        check_whole("Truncated", truncation=truncation)
        self.truncation = truncation

    def check(self, cell: Cell, solver: Solver, penalty: Penalty | None, supervision: Supervision) -> None:
        """Raise a ContradictionError for a solver without plain steps or with too few, or a loss on every state."""
        _require_plain_steps(self, solver)
        check_last_states(self, solver, supervision, self.truncation)

    def run(self, run: Run) -> Solution:
        """See Gradient."""
        if self.truncation >= run.steps or not torch.is_grad_enabled():
            return Unrolled().run(run)
        with torch.no_grad():
            before = run.first(run.steps - self.truncation)
        return Unrolled().run(run.rest(before, start_recording(before.state))).after(before)

    def __repr__(self) -> str:
        return f"Truncated({self.truncation})"


def check_last_states(gradient: Gradient, solver: Solver, supervision: Supervision, truncation: int = 1) -> None:
    """Check the other parts of a gradient that reaches only the last `truncation` states.

    Raises:
        ContradictionError: a loss on every state, or a solver with fewer steps.
    """
    if supervision == "every":
        raise ContradictionError(
            {"supervision": supervision, "gradient": gradient},
            f"{gradient!r} does not differentiate the earlier states, which are all read; use Unrolled(), or "
            "supervision 'last'",
        )
    if truncation > solver.steps:
        raise ContradictionError(
            {"truncation": truncation, "steps": solver.steps},
            "a run cannot record more steps than it has; use Unrolled(), or at most as many",
            type(gradient).__name__,
        )


def _as_inputs(state: State) -> State:
    """`state` as inputs of a step, to be differentiated by.

    Each is a tensor of its own: one that appears twice in a state, or is the drive as well, has several derivatives.
    """
    constant = [part for part in state if not part.requires_grad]
    refuse_transform(constant, "a penalty", "use a recurrence without one, or torch.autograd")
    return tuple(part.view_as(part) if part.requires_grad else part.detach().requires_grad_() for part in state)


def _require_plain_steps(gradient: Gradient, solver: Solver) -> None:
    if solver.stops_at_tol:
        raise ContradictionError(
            {"solver": solver, "gradient": gradient},
            f"{gradient!r} differentiates plain steps, which {solver!r} does not take; use FixedSteps, or the solver "
            "with an Implicit gradient",
        )
