"""How the result of a run is differentiated; the interface is `Gradient` in interfaces.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from crbp_d2.checks import ContradictionError, check_whole
from crbp_d2.tracing import refuse_batched, refuse_transform

from .autograd import once_differentiated, reaches_beyond
from .cell_step import CellStep
from .checkpointing import kept_from_checkpoint
from .interfaces import Cell, Penalty, Solver, Step, Trajectory, TransposeSolver, Visit
from .scope import many_products
from .solution import Solution
from .solvers.base import AffineStep, warn_unconverged
from .state import State, is_finite, vjp
from .supervision import Supervision


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


class Implicit:
    """Recurrent back-propagation: the gradient at the fixed point, u dF/dw with u (I - J) = dL/dh*.

    All steps but the last run without a graph. The last one is recorded; in the backward pass its
    graph serves every Jacobian product of `transpose` and then carries u to parameters and drive, so
    memory does not depend on the number of steps.

    Args:
        transpose: solver of u = J^T u + g: NeumannSeries(15), or any solver of the forward run.
            NeumannSeries(0) is the one-step gradient.

    Raises:
        TypeError: transpose is not a solver.
    """

    def __init__(self, transpose: TransposeSolver):
        if not isinstance(transpose, TransposeSolver):
            raise TypeError(f"Implicit: transpose must be a solver, got {type(transpose).__name__}")
        self.transpose = transpose
        self._warned = False

    def check(self, cell: Cell, solver: Solver, penalty: Penalty | None, supervision: Supervision) -> None:
        """Raise a ContradictionError for a loss on every state."""
        if supervision == "every":
            raise ContradictionError(
                {"supervision": supervision, "gradient": self},
                f"{self!r} does not differentiate the states before the fixed point, which are all read; use "
                "Unrolled(), or supervision 'last'",
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
        if not torch.is_grad_enabled() and not solver.stops_at_tol:
            return finished(solver.solve(step, state, steps, visit), None)
        solution = self.recorded(step, state, solver, steps, visit)
        trajectory = finished(solution, penalty)
        trajectory.state = self.differentiated(solution)
        return trajectory

    def recorded(self, step: Step, state: State, solver: Solver, steps: int, visit: Visit | None = None) -> Solution:
        """A run whose last step alone is plain and has a graph, from a previous state that has none."""
        with torch.no_grad():
            before = solver.solve(step, state, steps - 1, visit)
        previous = start_recording(before.state)
        with kept_from_checkpoint(), many_products():
            new = step(previous)
        if visit:
            visit(new)
        solution = Solution.of_steps(previous, new, [is_finite(new)], solver.tol)
        solution.stats = solution.stats.after(before.stats)
        return solution

    def differentiated(self, solution: Solution) -> State:
        """The last state of a recorded run, whose incoming gradient g is replaced by u = J^T u + g."""
        if not torch.is_grad_enabled():
            return solution.state
        refuse_transform(solution.state, repr(self), "use Unrolled() without a penalty")
        if not reaches_beyond(solution.state, solution.previous):
            # A frozen recurrence: nobody wants the backward solve.
            return tuple(part.detach() for part in solution.state)

        def product(v: State) -> State:
            return vjp(solution.state, solution.previous, v, retain_graph=True)

        def solve(g: State) -> State:
            solved = self.transpose.solve(AffineStep(product, g), g)
            self._warned = self._warned or warn_unconverged(self.transpose, solved.stats, "transposed solve")
            solution.stats.report_backward(solved.stats)
            return solved.state

        return _TransposeSolve.apply(solve, *solution.state)

    def __repr__(self) -> str:
        return f"Implicit({self.transpose!r})"


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


class _TransposeSolve(torch.autograd.Function):
    """Identity forward; backward maps the gradients of all tensors of a state together through `solve`."""

    @staticmethod
    def forward(ctx: Any, solve: Callable[[State], State], *state: Tensor) -> State:
        ctx.solve, ctx.state = solve, state
        # Not a view, which nobody could write into afterwards.
        return tuple(part.detach() for part in state)

    @staticmethod
    def backward(ctx: Any, *g: Tensor) -> tuple[Tensor | None, ...]:
        refuse_batched(g, "an Implicit gradient")
        with torch.no_grad():
            u = ctx.solve(tuple(part.detach() for part in g))
        return (None, *once_differentiated(u, (*ctx.state, *g)))
