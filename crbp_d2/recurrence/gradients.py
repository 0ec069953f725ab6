"""How the result of a run is differentiated.

A gradient has `run(step, state, solver, steps, visit) -> Trajectory` and `check(solver, supervision)`,
which refuses what does not go together.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .autograd import once_differentiated, reaches_beyond
from .solvers.base import CONVERGED, AffineStep, Solution, SolveStats, Step, Visit, check_budget, warn_unconverged
from .state import State, vjp


@dataclass
class Trajectory:
    """A finished run.

    state: the last state, differentiable by the chosen gradient.
    solution: its last two states with the plain graph of the step between them, for the penalty.
    watch: tells the gradient where to report its backward solve.
    """

    state: State
    solution: Solution
    watch: Callable[[SolveStats], None] = lambda stats: None


class Unrolled:
    """Back-propagation through time: autograd through every step; memory grows with their number."""

    def run(self, step: Step, state: State, solver, steps: int, visit: Visit) -> Trajectory:
        solution = solver.solve(step, state, steps, visit)
        return Trajectory(solution.state, solution)

    def check(self, solver, supervision: str) -> None:
        _require_plain_steps(self, solver)

    def __repr__(self) -> str:
        return "Unrolled()"


class Truncated:
    """Truncated back-propagation through time: autograd through the last `truncation` steps only.

    Args:
        truncation: k, at least 1. A run of fewer steps is unrolled whole.

    Raises:
        ValueError: truncation < 1.
    """

    def __init__(self, truncation: int):
        check_budget("Truncated", truncation=truncation)
        self.truncation = truncation

    def run(self, step: Step, state: State, solver, steps: int, visit: Visit) -> Trajectory:
        kept = min(self.truncation, steps)
        if steps > kept:
            with torch.no_grad():
                state = solver.solve(step, state, steps - kept, visit).state
            state = _start_recording(state)
        solution = solver.solve(step, state, kept, visit)
        solution.steps = steps
        return Trajectory(solution.state, solution)

    def check(self, solver, supervision: str) -> None:
        _require_plain_steps(self, solver)
        if supervision == "every":
            raise ValueError(
                f"supervision 'every' reads every state, but {self} cuts the gradient of all but the last ones; "
                "use Unrolled()"
            )
        if self.truncation > solver.steps:
            raise ValueError(
                f"Truncated: truncation {self.truncation} exceeds the {solver.steps} steps of the solver; "
                "use Unrolled(), or at most as many"
            )

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

    def __init__(self, transpose):
        if not hasattr(transpose, "solve"):
            raise TypeError(f"Implicit: transpose must be a solver, got {type(transpose).__name__}")
        self.transpose = transpose
        self._warned = False

    def check(self, solver, supervision: str) -> None:
        if supervision == "every":
            raise ValueError(
                "supervision 'every' reads states before the fixed point, which an Implicit gradient does not "
                "differentiate; use it with Unrolled(), or Implicit with supervision 'last'"
            )

    def run(self, step: Step, state: State, solver, steps: int, visit: Visit) -> Trajectory:
        with torch.no_grad():
            before = solver.solve(step, state, steps - 1, visit)
        previous = _start_recording(before.state)
        raw = step(previous)
        visit(raw)
        more = None if before.sample_steps is None else before.sample_steps + 1
        solution = Solution(previous, raw, before.steps + 1, more)
        if not torch.is_grad_enabled():
            return Trajectory(raw, solution)
        if not reaches_beyond(raw, previous):  # A frozen recurrence: nobody wants the backward solve.
            return Trajectory(tuple(part.detach() for part in raw), solution)
        return self._differentiate_at_fixed_point(solution)

    def _differentiate_at_fixed_point(self, solution: Solution) -> Trajectory:
        """The last state of `solution`, whose incoming gradient g is replaced by u = J^T u + g."""
        watched: list[SolveStats] = []

        def product(v: State) -> State:
            return vjp(solution.state, solution.previous, v, retain_graph=True)

        def solve(g: State) -> State:
            solved = self.transpose.solve(AffineStep(product, g), g)
            report = solved.report(self.transpose.tol or CONVERGED)
            self._warned = self._warned or warn_unconverged(self.transpose, report, "transposed solve")
            for stats in watched:
                stats.transpose = report
                if stats.on_backward:
                    stats.on_backward(stats)
            return solved.state

        state = _TransposeSolve.apply(solve, *solution.state)
        return Trajectory(state, solution, watched.append)

    def __repr__(self) -> str:
        return f"Implicit({self.transpose!r})"


def _start_recording(state: State) -> State:
    """`state` as the leaf of the graph that the next steps record, if gradients are on."""
    recorded = torch.is_grad_enabled()
    if recorded:
        # Autocast would otherwise hand the recorded steps the weights it cast without a graph.
        torch.clear_autocast_cache()
    return tuple(part.detach().requires_grad_(recorded) for part in state)


def _require_plain_steps(gradient, solver) -> None:
    if solver.stops_at_tol:
        raise ValueError(
            f"{gradient} differentiates plain steps, which {solver!r} does not take; use it with FixedSteps, "
            "or the solver with an Implicit gradient"
        )


class _TransposeSolve(torch.autograd.Function):
    """Identity forward; backward maps the gradients of all tensors of a state together through `solve`."""

    @staticmethod
    def forward(ctx, solve: Callable[[State], State], *state: Tensor) -> State:
        ctx.solve, ctx.state = solve, state
        return tuple(part.view_as(part) for part in state)

    @staticmethod
    def backward(ctx, *g: Tensor):
        with torch.no_grad():
            u = ctx.solve(tuple(part.detach() for part in g))
        return (None, *once_differentiated(u, (*ctx.state, *g)))
