"""The gradient at the fixed point."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from crbp_d2.layers.cache import many_products
from crbp_d2.layers.tensors import widen
from crbp_d2.utils.tracing import refuse_batched, refuse_transform

from ..guards import kept_from_checkpoint, once_differentiated, reaches_beyond, start_recording
from ..interfaces import Cell, Penalty, Run, Solution, Solver, SolveStats, TransposeSolver
from ..solvers.base import AffineStep, warn_unconverged
from ..state import State, per_sample, total, vjp
from ..supervision import Supervision
from .unrolled import check_last_states

HALF = (torch.float16, torch.bfloat16)


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
        check_last_states(self, solver, supervision)

    def run(self, run: Run) -> Solution:
        """See Gradient."""
        if not torch.is_grad_enabled() and not run.solver.stops_at_tol:
            return run.first(run.steps)
        with torch.no_grad():
            before = run.first(run.steps - 1)
        previous = start_recording(before.state)
        with kept_from_checkpoint(), many_products():
            new = run.step(previous)
        if run.visit:
            run.visit(new)
        solution = Solution.of_steps(previous, new, [total(new)], run.solver.tol).after(before)
        if run.penalty is not None:
            solution.penalty = run.penalty(previous, new)
        if torch.is_grad_enabled():
            solution.state = self._differentiated(previous, new, solution.stats)
        return solution

    def _differentiated(self, previous: State, state: State, stats: SolveStats) -> State:
        """`state`, whose incoming gradient g is replaced by u = J^T u + g."""
        refuse_transform(state, repr(self), "use Unrolled() without a penalty")
        if not reaches_beyond(state, previous):
            return tuple(part.detach() for part in state)
        kind = state[0].device.type
        half = torch.is_autocast_enabled(kind) or any(part.dtype in HALF for part in state)

        def product(v: State) -> State:
            return vjp(state, previous, v, retain_graph=True)

        def solve(g: State) -> State:
            scale = _power_of_two(g)
            scaled = _times(g, scale)
            solved = self.transpose.solve(AffineStep(product, scaled), scaled)
            if self.transpose.stops_at_tol and not self._warned:
                self._warned = warn_unconverged(self.transpose, solved.stats, "transposed solve")
            stats.report_backward(solved.stats)
            # In half precision an overflow must reach the loss scaler, whatever the solver made of it.
            back = torch.where(solved.stats.nonfinite_step > 0, torch.nan, 1 / scale) if half else 1 / scale
            return _times(solved.state, back)

        return _TransposeSolve.apply(solve, *state)

    def __repr__(self) -> str:
        return f"Implicit({self.transpose!r})"


def _power_of_two(g: State) -> Tensor:
    """The power of two that brings the largest element of g near 1, N times.

    Products then neither overflow nor vanish in half precision, whatever the loss scale. One for all samples: a batch
    norm couples them, and a solve is linear only in the batch as a whole.
    """
    sizes = [part.abs().amax().float() for part in g if part.numel()]
    if not sizes:
        return g[0].new_ones(len(g[0]), dtype=torch.float32)
    size = sizes[0] if len(sizes) == 1 else torch.stack(sizes).amax()
    # mantissa / size is 2 ** -exponent; it is undefined for 0 and for infinite sizes.
    return (torch.frexp(size).mantissa / size).nan_to_num(nan=1.0, posinf=2.0**126).expand(len(g[0]))


def _times(state: State, factor: Tensor) -> State:
    return tuple((widen(part) * per_sample(factor, part).to(widen(part).dtype)).to(part.dtype) for part in state)


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
