"""A C-RBP training step compared with a plain loop: time and error of the gradient.

N: samples; C: channels; H x W: image size.
"""

import copy
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from crbp_d2.cells import GalaHGRUCell, HGRUCell
from crbp_d2.layers.tensors import preferred_layout
from crbp_d2.recurrence import Anderson, Implicit, LipschitzPenalty, Recurrence, UnconvergedWarning, learning_rule

from .plain_cells import plain
from .tables import Table

STEPS, TERMS = 20, 15
# Settings of `learning_rule` that reach a gradient no worse than the plain one's, with fewer evaluations and products.
ACCELERATED = {
    "mask cell": {"solver": "Anderson", "max_steps": 7, "num_terms": 3},
    "Pathfinder hGRU": {"solver": "Anderson", "max_steps": 7, "num_terms": 3},
}


@dataclass(frozen=True)
class Problem:
    """A cell, its drive, and the penalty of the model it is from.

    drive: N x C x H x W.
    """

    name: str
    cell: nn.Module
    drive: Tensor
    bound: float
    reduction: str
    weight: float

    def loss(self, state: Tensor, penalty: Tensor) -> Tensor:
        """A smooth loss that weighs every element differently, and the weighted penalty."""
        weights = torch.linspace(0.5, 2, state[0].numel(), dtype=state.dtype, device=state.device).view_as(state[0])
        return (weights * state).sin().mean() + self.weight * penalty

    def on(self, device: str) -> "Problem":
        """The same there."""
        return replace(self, cell=copy.deepcopy(self.cell).to(device), drive=self.drive.to(device))

    def in_layout(self) -> "Problem":
        """The same with a drive in the layout in which the heads run such a cell."""
        layout = preferred_layout(self.drive.shape[1], self.drive.device.type)
        return replace(self, drive=self.drive.contiguous(memory_format=layout))

    def rule(self, **settings) -> Recurrence:
        given = {"steps": STEPS, "num_terms": TERMS, "bound": self.bound, "reduction": self.reduction}
        return learning_rule("crbp", self.cell, **{**given, **settings})


def mask_problem(samples: int = 8, channels: int = 256, size: int = 14) -> Problem:
    """The cell of the panoptic mask head on RoI features of unit variance."""
    torch.manual_seed(0)
    cell = GalaHGRUCell(channels)
    drive = torch.randn(samples, channels, size, size)
    return Problem("mask cell", cell, drive, bound=0.95, reduction="sum", weight=0.001)


def pathfinder_problem(samples: int = 4, channels: int = 25, size: int = 150) -> Problem:
    """The hGRU of the Pathfinder network on squared features of unit variance."""
    torch.manual_seed(0)
    cell = HGRUCell(channels)
    drive = torch.randn(samples, channels, size, size).square()
    return Problem("Pathfinder hGRU", cell, drive, bound=0.9, reduction="mean", weight=10.0)


def plain_step(problem: Problem) -> None:
    """The reference: a plain cell, every step in turn, one autograd.grad a term, nothing shared or chosen.

    Leaves the gradients in the parameters of the problem's cell.
    """
    cell, drive = plain(problem.cell), problem.drive
    state = torch.zeros_like(drive)
    with torch.no_grad():
        for _ in range(STEPS - 1):
            (state,) = cell(drive, (state,))
    previous = state.detach().requires_grad_()
    (state,) = cell(drive, (previous,))
    (columns,) = torch.autograd.grad(state, previous, torch.ones_like(state), create_graph=True)
    excess = (columns - problem.bound).clamp(min=0).square()
    penalty = excess.sum() if problem.reduction == "sum" else excess.mean()
    leaf = state.detach().requires_grad_()
    (term,) = torch.autograd.grad(problem.loss(leaf, torch.zeros(())), leaf)
    total = term
    for _ in range(TERMS):
        (term,) = torch.autograd.grad(state, previous, term, retain_graph=True)
        total = total + term
    torch.autograd.backward([state, penalty], [total, torch.full_like(penalty, problem.weight)])


def recurrence_step(problem: Problem, recurrence: Recurrence) -> None:
    """The same by a Recurrence. Leaves the gradients in the parameters of its cell."""
    output = recurrence(problem.drive)
    problem.loss(output.state[0], output.penalty).backward()


def gradient_of(cell: nn.Module, step: Callable[[], None]) -> Tensor:
    """All parameters' gradients after `step`, as one vector."""
    cell.zero_grad(set_to_none=True)
    step()
    return torch.cat([p.grad.flatten() for p in cell.parameters()])


def converged_gradient(problem: Problem) -> Tensor:
    """The gradient at the fixed point, in float64, both solves to a residual of 1e-5."""
    exact = replace(problem, cell=copy.deepcopy(problem.cell).double(), drive=problem.drive.double())
    solver = Anderson(memory=50, tol=1e-5, max_steps=400)
    penalty = LipschitzPenalty(problem.bound, problem.reduction)
    recurrence = Recurrence(exact.cell, solver, Implicit(solver), penalty)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnconvergedWarning)
        return gradient_of(exact.cell, lambda: recurrence_step(exact, recurrence))


def relative_error(found: Tensor, truth: Tensor) -> float:
    return ((found.double() - truth).norm() / truth.norm()).item()


def time_interleaved(
    variants: Mapping[str, Callable[[], object]], repeats: int, clock: Callable[[], float] | None = None
) -> dict[str, tuple[float, float]]:
    """Median seconds of each variant, and the median of its ratios to the first, run in turn `repeats` times.

    Args:
        clock: seconds since some moment; default: time.perf_counter.
    """
    clock = clock or time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(repeats):
        for name, run in variants.items():
            start = clock()
            run()
            seconds[name].append(clock() - start)
    first = seconds[next(iter(variants))]
    return {
        name: (statistics.median(values), statistics.median(a / b for a, b in zip(first, values, strict=True)))
        for name, values in seconds.items()
    }


def compare_steps(
    problem: Problem, small: Problem, accelerated: dict, repeats: int, clock: Callable[[], float] | None = None
) -> list[list[str]]:
    """Rows of `steps_table`: problem, way, evaluations, products, seconds, times as fast, gradient error.

    Args:
        small: the same cell on fewer or smaller samples, for the errors; their truth takes hundreds of evaluations.
        accelerated: settings of `learning_rule`.
        clock: see `time_interleaved`.
    """

    settings = {"crbp": {}, "crbp, accelerated": accelerated}

    def variants_on(problem: Problem) -> dict[str, Callable[[], None]]:
        recurrences = {name: problem.rule(**values) for name, values in settings.items()}
        runs = {"plain reference": lambda: plain_step(problem)}
        runs |= {name: lambda r=r: recurrence_step(problem, r) for name, r in recurrences.items()}
        return runs

    truth = converged_gradient(small)
    errors = {name: relative_error(gradient_of(small.cell, run), truth) for name, run in variants_on(small).items()}
    runs = variants_on(problem)
    for run in runs.values():
        run()
    times = time_interleaved(runs, repeats, clock)
    counts = dict.fromkeys(runs, (STEPS, TERMS))
    counts["crbp, accelerated"] = accelerated["max_steps"], accelerated["num_terms"]
    return [
        [problem.name, name, *map(str, counts[name]), f"{seconds:.3f}", f"{ratio:.2f}", f"{errors[name]:.3f}"]
        for name, (seconds, ratio) in times.items()
    ]


def steps_table(rows: list[list[str]]) -> Table:
    """Rows of `compare_steps`."""
    return Table(["problem", "way", "evaluations", "products", "seconds", "times as fast", "gradient error"], rows)
