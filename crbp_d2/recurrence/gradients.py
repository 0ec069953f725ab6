"""How the result of a run is differentiated.

A gradient has `run(step, state, solver, steps, visit) -> Trajectory` and `check(solver, supervision)`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .solvers import Solution, SolveStats, Step, Visit
from .state import State
from .transpose import TransposeStats


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
        pass

    def __repr__(self) -> str:
        return "Unrolled()"


class Implicit:
    """Recurrent back-propagation: the gradient at the fixed point, u dF/dw with u (I - J) = dL/dh*.

    All steps but the last run without a graph. The last one is recorded; in the backward pass its
    graph serves every Jacobian product of `transpose` and then carries u to parameters and drive, so
    memory does not depend on the number of steps.

    Args:
        transpose: solver of u = J^T u + g, for instance NeumannSeries(15).
    """

    def __init__(self, transpose):
        if not hasattr(transpose, "solve"):
            raise TypeError(f"Implicit: transpose must have solve(vjp, g), got {type(transpose).__name__}")
        self.transpose = transpose

    def check(self, solver, supervision: str) -> None:
        if supervision == "every":
            raise ValueError(
                "supervision 'every' reads states before the fixed point, which an Implicit gradient does not "
                "differentiate; use it with Unrolled(), or Implicit with supervision 'last'"
            )

    def run(self, step: Step, state: State, solver, steps: int, visit: Visit) -> Trajectory:
        with torch.no_grad():
            before = solver.solve(step, state, steps - 1, visit)
        recorded = torch.is_grad_enabled()
        if recorded:
            # Autocast would otherwise hand the recorded step the weights it cast without a graph.
            torch.clear_autocast_cache()
        previous = tuple(part.detach().requires_grad_(recorded) for part in before.state)
        raw = step(previous)
        visit(raw)
        solution = Solution(previous, raw, steps)
        if not recorded:
            return Trajectory(raw, solution)
        return _differentiate_at_fixed_point(solution, self.transpose)

    def __repr__(self) -> str:
        return f"Implicit({self.transpose!r})"


def _differentiate_at_fixed_point(solution: Solution, transpose) -> Trajectory:
    """The last state of `solution`, whose incoming gradient g is replaced by u = J^T u + g."""
    watched: list[SolveStats] = []

    def vjp(v: State) -> State:
        products = torch.autograd.grad(solution.state, solution.previous, v, retain_graph=True, allow_unused=True)
        return tuple(torch.zeros_like(part) if p is None else p for p, part in zip(products, v, strict=True))

    def solve(g: State) -> State:
        u, report = transpose.solve(vjp, g)
        for stats in watched:
            _deliver(stats, report)
        return u

    state = _TransposeSolve.apply(solve, *solution.state)
    return Trajectory(state, solution, watched.append)


def _deliver(stats: SolveStats, report: TransposeStats) -> None:
    stats.transpose = report
    if stats.on_backward:
        stats.on_backward(stats)


class _TransposeSolve(torch.autograd.Function):
    """Identity forward; backward maps the gradients of all tensors of a state together through `solve`."""

    @staticmethod
    def forward(ctx, solve: Callable[[State], State], *state: Tensor) -> State:
        ctx.solve = solve
        return tuple(part.view_as(part) for part in state)

    @staticmethod
    @once_differentiable
    def backward(ctx, *g: Tensor):
        return (None, *ctx.solve(g))
