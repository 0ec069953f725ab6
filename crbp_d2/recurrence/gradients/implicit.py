"""The gradient at the fixed point."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from crbp_d2.layers.cache import many_products
from crbp_d2.utils.errors import ContradictionError
from crbp_d2.utils.tracing import refuse_batched, refuse_transform

from ..cell_step import CellStep
from ..guards import kept_from_checkpoint, once_differentiated, reaches_beyond
from ..interfaces import Cell, Penalty, Solver, Step, Trajectory, TransposeSolver, Visit
from ..solution import Solution
from ..solvers.base import AffineStep, warn_unconverged
from ..state import State, is_finite, vjp
from ..supervision import Supervision
from .unrolled import finished, start_recording


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
