"""The implicit gradient against torchdeq's (extra `deq`), at equal tolerance and at equal error.

Both solve by Anderson acceleration with the same memory, forward and transposed, and stop at the same
residual, ||F(h) - h|| / ||F(h)||. What they reached is measured afterwards, by one function for both.
"""

import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from crbp_d2.recurrence import Anderson, Implicit, Recurrence, UnconvergedWarning
from crbp_d2.recurrence.state import State, relative_change

from .tables import Table
from .training_step import Problem, converged_gradient, gradient_of, relative_error, time_interleaved

# torchdeq remembers 6 points, that is 5 differences.
MEMORY, MAX_STEPS = 5, 60
TOLERANCES = (1e-2, 1e-3, 1e-4)
# Tolerances, forward and transposed, among which the cheapest that reach an error are looked for.
FORWARD, TRANSPOSED = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4), (1e-1, 3e-2, 1e-2, 3e-3, 1e-3)
TORCHDEQ, SCALED, OURS = "torchdeq", "torchdeq, scaled loss", "crbp_d2"


@dataclass(frozen=True)
class SolveCost:
    """The cost of one variant of a training step.

    tols: at which the forward and the transposed solve stop.
    evaluations: number of the cell's. products: number of vector-Jacobian products.
    residuals: largest of a sample, of the forward and of the transposed solve, measured afterwards.
    error: relative error of the gradient.
    seconds: median. ratio: times as fast as torchdeq, median over rounds.
    """

    way: str
    tols: tuple[float, float]
    evaluations: int
    products: int
    residuals: tuple[float, float]
    error: float
    seconds: float = 0.0
    ratio: float = 1.0


class _Watched(nn.Module):
    """A cell that counts its evaluations and the gradients that pass it, and keeps what its residuals need.

    points: states from which a step was recorded. adjoint: the last gradient that passed.
    """

    def __init__(self, cell: nn.Module):
        super().__init__()
        self.cell = cell
        self.evaluations = self.passes = 0
        self.points: list[Tensor] = []
        self.adjoint: Tensor | None = None

    def initial_state(self, drive: Tensor) -> State:
        return self.cell.initial_state(drive)

    def forward(self, drive: Tensor, state: State) -> State:
        self.evaluations += 1
        (new,) = self.cell(drive, state)
        if torch.is_grad_enabled():
            self.points.append(state[0].detach())
            new.register_hook(self._passed)
        return (new,)

    def _passed(self, g: Tensor) -> None:
        self.passes += 1
        self.adjoint = g.detach()


# (cell, drive) -> state with an implicit gradient
StateOf = Callable[[nn.Module, Tensor], Tensor]


def our_state(forward_tol: float, transposed_tol: float) -> StateOf:
    solvers = [Anderson(memory=MEMORY, tol=tol, max_steps=MAX_STEPS) for tol in (forward_tol, transposed_tol)]
    return lambda cell, drive: Recurrence(cell, solvers[0], Implicit(solvers[1]))(drive).state[0]


def torchdeq_state(tol: float) -> StateOf:
    from torchdeq import get_deq

    deq = get_deq(
        ift=True, f_solver="anderson", b_solver="anderson", f_tol=tol, b_tol=tol, f_stop_mode="rel", b_stop_mode="rel",
        f_max_iter=MAX_STEPS, b_max_iter=MAX_STEPS,
    )  # fmt: skip
    return lambda cell, drive: deq(lambda h: cell(drive, (h,))[0], torch.zeros_like(drive))[0][-1]


def measure(way: str, problem: Problem, state_of: StateOf, tols: tuple[float, float], truth: Tensor) -> SolveCost:
    """All but the time."""
    watched = _Watched(problem.cell)
    found = _step(way, problem, lambda: state_of(watched, problem.drive))
    # The last pass carries the solution to the parameters.
    counts = watched.evaluations, watched.passes - 1
    return SolveCost(way, tols, *counts, _residuals(way, problem, watched), relative_error(found, truth))


def _scale(way: str, problem: Problem) -> int:
    return problem.drive.numel() if way == SCALED else 1


def _step(way: str, problem: Problem, state: Callable[[], Tensor]) -> Tensor:
    scale = _scale(way, problem)
    return gradient_of(problem.cell, lambda: (scale * problem.loss(state(), torch.zeros(()))).backward()) / scale


def _residuals(way: str, problem: Problem, watched: _Watched) -> tuple[float, float]:
    """Residuals of the forward solve at the recorded step, and of the transposed solve at its linearization."""
    h = watched.points[0]
    with torch.no_grad():
        (state,) = problem.cell(problem.drive, (h,))
    leaf = state.requires_grad_()
    (g,) = torch.autograd.grad(_scale(way, problem) * problem.loss(leaf, torch.zeros(())), leaf)
    point = watched.points[-1].requires_grad_()
    (product,) = torch.autograd.grad(problem.cell(problem.drive, (point,)), point, watched.adjoint)
    forward = relative_change((h,), (state.detach(),))
    transposed = relative_change((watched.adjoint,), (product + g,))
    return forward.max().item(), transposed.max().item()


@dataclass(frozen=True)
class Comparison:
    """same_tolerance: the three ways at each tolerance. same_error: torchdeq's better way and ours, for each."""

    same_tolerance: list[SolveCost]
    same_error: list[tuple[SolveCost, SolveCost]]


def compare_with_torchdeq(problem: Problem, tolerances: Iterable[float], repeats: int) -> Comparison:
    """Ways at each tolerance, and the cheapest tolerances of ours whose error is no larger than torchdeq's smaller.

    Seconds are of the processor.
    """
    truth = converged_gradient(replace(problem, weight=0.0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnconvergedWarning)
        ours = [measure(OURS, problem, our_state(*tols), tols, truth)
                for tols in ((f, t) for f in FORWARD for t in TRANSPOSED)]  # fmt: skip
        same_tolerance, same_error = [], []
        for tol in tolerances:
            states = {TORCHDEQ: torchdeq_state(tol), SCALED: torchdeq_state(tol), OURS: our_state(tol, tol)}
            costs = [measure(way, problem, state_of, (tol, tol), truth) for way, state_of in states.items()]
            same_tolerance += _timed(problem, list(zip(costs, states.values(), strict=True)), repeats)
            theirs = min(costs[:2], key=lambda cost: cost.error)
            reached = [cost for cost in ours if cost.error <= theirs.error]
            if reached:
                cheapest = min(reached, key=lambda cost: cost.evaluations + cost.products)
                ways = [(theirs, states[theirs.way]), (cheapest, our_state(*cheapest.tols))]
                same_error.append(tuple(_timed(problem, ways, repeats)))
    return Comparison(same_tolerance, same_error)


def _timed(problem: Problem, ways: Sequence[tuple[SolveCost, StateOf]], repeats: int) -> list[SolveCost]:
    runs = {
        cost.way: lambda way=cost.way, state_of=state_of: _step(
            way, problem, lambda: state_of(problem.cell, problem.drive)
        )
        for cost, state_of in ways
    }
    times = time_interleaved(runs, repeats, time.process_time)
    return [replace(cost, seconds=times[cost.way][0], ratio=times[cost.way][1]) for cost, _ in ways]


def torchdeq_table(costs: Iterable[SolveCost]) -> Table:
    """A row a way; times as fast is relative to torchdeq."""
    headers = ["way", "tolerances", "evaluations", "products", "forward residual", "transposed residual",
               "gradient error", "seconds", "times as fast"]  # fmt: skip
    return Table(
        headers,
        [
            [cost.way, " / ".join(f"{tol:g}" for tol in cost.tols), cost.evaluations, cost.products,
             *(f"{residual:.1e}" for residual in cost.residuals), f"{cost.error:.3f}", f"{cost.seconds:.3f}",
             f"{cost.ratio:.2f}"]
            for cost in costs
        ],
    )  # fmt: skip
