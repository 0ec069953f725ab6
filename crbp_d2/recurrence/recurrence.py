"""The joint of cell, solver, gradient, penalty and supervision."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .gradients import Trajectory
from .solvers import SolveStats
from .state import State, describe

SUPERVISION = ("last", "every")


@dataclass
class RecurrenceOutput:
    """What a run returns.

    state: the last state, differentiable by the chosen gradient.
    penalty: unweighted scalar; 0 with a graph where the recurrence has no penalty.
    stats: steps, residual, converged; after the backward pass also the backward solve.
    states: the state after every step, with supervision "every" or record=True, else None.
    """

    state: State
    penalty: Tensor
    stats: SolveStats
    states: list[State] | None = None


class Recurrence(nn.Module):
    """h_{t+1} = cell(drive, h_t), run and differentiated as its parts say.

    Args:
        cell: module with `forward(drive, state) -> state` and `initial_state(drive) -> state`.
        solver: how steps are run, for instance FixedSteps(20).
        gradient: how the last state is differentiated, Unrolled() or Implicit(...).
        penalty: callable (previous, state) -> scalar, or None.
        supervision: "last", or "every" to have all states in the output.

    Raises:
        ValueError: arguments that contradict each other.
    """

    def __init__(
        self,
        cell: nn.Module,
        solver,
        gradient,
        penalty: Callable[[State, State], Tensor] | None = None,
        supervision: str = "last",
    ):
        super().__init__()
        if supervision not in SUPERVISION:
            raise ValueError(f"supervision must be one of {', '.join(SUPERVISION)}, got {supervision!r}")
        gradient.check(solver, supervision)
        self.cell = cell
        self.solver = solver
        self.gradient = gradient
        self.penalty = penalty
        self.supervision = supervision
        self.last_stats: SolveStats | None = None

    def forward(
        self, drive: Tensor, state: State | None = None, steps: int | None = None, record: bool = False
    ) -> RecurrenceOutput:
        """Run the recurrence.

        Args:
            drive: N x C x H x W, the same at every step.
            state: where to start; default the cell's initial state.
            steps: default the solver's own number.
            record: keep the state after every step.

        Raises:
            ValueError: steps < 1, or a state the cell answers with one of another shape.
        """
        steps = self.solver.steps if steps is None else steps
        if steps < 1:
            raise ValueError(f"Recurrence: steps must be at least 1, got {steps}")
        state = self.cell.initial_state(drive) if state is None else state
        penalized = self.penalty is not None and torch.is_grad_enabled() and drive.shape[0] > 0
        if penalized:
            # The penalty differentiates the last step by its input, which is this one if there is only one step.
            state = tuple(part if part.requires_grad else part.detach().requires_grad_() for part in state)

        states: list[State] | None = [] if record or self.supervision == "every" else None
        trajectory = self.gradient.run(
            lambda h: self._step(drive, h),
            state,
            self.solver,
            steps,
            states.append if states is not None else lambda h: None,
        )
        if states is not None:
            states[-1] = trajectory.state
        solution = trajectory.solution
        penalty = self.penalty(solution.previous, solution.state) if penalized else _zero(trajectory)
        stats = self.solver.report(solution)
        trajectory.watch(stats)
        self.last_stats = stats
        return RecurrenceOutput(trajectory.state, penalty, stats, states)

    def _step(self, drive: Tensor, state: State) -> State:
        new = self.cell(drive, state)
        if [part.shape for part in new] != [part.shape for part in state]:
            raise ValueError(f"Recurrence: the cell maps a state of {describe(state)} to one of {describe(new)}")
        # Under autocast a step must not change the state's precision, or J would not be square.
        return tuple(part.to(old.dtype) for part, old in zip(new, state, strict=True))

    def extra_repr(self) -> str:
        penalty = f", penalty={self.penalty!r}" if self.penalty is not None else ""
        return f"solver={self.solver!r}, gradient={self.gradient!r}{penalty}, supervision={self.supervision!r}"


def _zero(trajectory: Trajectory) -> Tensor:
    """A zero that hangs on the graph and stays zero when the state is not finite."""
    return trajectory.state[0].flatten()[:0].sum()
