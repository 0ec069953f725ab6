"""What the horizontal convolutions cost by every method, and what the choice of "auto" loses on this machine.

N: batch; C: channels; S x S: image size; E: kernel size. All within a solve, whose steps share what is computed from
a kernel alone.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import exp, log
from statistics import mean, median

import torch
from torch import nn

from crbp_d2.cells import HGRUCell
from crbp_d2.layers.cache import solve_scope
from crbp_d2.layers.convolution import HorizontalConv2d, set_convolution
from crbp_d2.layers.cost_model import Problem, choose_method, supports
from tools.page import markdown_table

from .plots import Panel

METHODS = ("direct", "fft")
STEP_METHODS = ("direct", "fft", "auto")
KERNELS, IMAGES, CHANNELS, BATCH = (3, 5, 7, 9, 11, 15), (48, 150), 25, 4


def _square(kernel_size: int, channels: int, image: int, batch: int) -> Problem:
    return Problem(batch, channels, channels, image, image, kernel_size)


# The Pathfinder network's by kernel size; its laptop-size one's, the mask cell's by number of RoIs, the toy model's.
SWEEP = tuple(_square(kernel, CHANNELS, image, BATCH) for image in IMAGES for kernel in KERNELS)
PROBLEMS = (
    *SWEEP,
    *(_square(kernel, 8, 48, 16) for kernel in KERNELS),
    *(_square(7, 8, 48, batch) for batch in (1, 64)),
    *(_square(3, 256, 14, batch) for batch in (1, 4, 16, 64)),
    _square(3, 64, 14, 32),
    _square(3, 32, 10, 32),
)


@dataclass(frozen=True)
class MethodTimes:
    """Seconds of a convolution by each method, with its vector-Jacobian product in the input: medians over rounds.

    choice: the method that "auto" takes.
    """

    problem: Problem
    dtype: torch.dtype
    seconds: dict[str, float]
    choice: str

    @property
    def fastest(self) -> str:
        return min(self.seconds, key=self.seconds.__getitem__)

    @property
    def loss(self) -> float:
        """Time of the chosen method over that of the fastest."""
        return self.seconds[self.choice] / self.seconds[self.fastest]


@dataclass(frozen=True)
class StepTimes:
    """Seconds of the same work by each method: medians over rounds in which the methods take turns.

    ratio: median over the rounds of direct / auto.
    """

    name: str
    seconds: dict[str, float]
    ratio: float


def measure_methods(
    problems: Sequence[Problem] = PROBLEMS,
    dtype: torch.dtype = torch.float32,
    rounds: int = 9,
    device: str = "cpu",
    clock: Callable[[], float] = time.perf_counter,
) -> Iterable[MethodTimes]:
    """One row a problem, with the methods that it is supported by."""
    torch.manual_seed(0)
    for problem in problems:
        x = (
            torch.rand(problem.batch, problem.in_channels, problem.height, problem.width)
            .to(device, dtype)
            .requires_grad_()
        )
        convolution = HorizontalConv2d(problem.in_channels, problem.out_channels, problem.kernel_size)
        convolution = convolution.to(device, dtype)
        convolution.requires_grad_(False)
        g = torch.rand(problem.batch, problem.out_channels, problem.height, problem.width).to(device, dtype)

        def work(convolution=convolution, x=x, g=g) -> None:
            torch.autograd.grad(convolution(x), x, g)

        methods = tuple(method for method in METHODS if supports(method, problem))
        times = _in_turn(convolution, work, methods, rounds, clock)
        seconds = {method: median(row[method] for row in times) for method in methods}
        yield MethodTimes(problem, dtype, seconds, choose_method(problem, dtype, device))


def measure_steps(kernel: int = 15, image: int = 150, rounds: int = 7) -> Iterable[StepTimes]:
    """A step of the hGRU without a graph, and a vector-Jacobian product through a recorded one."""
    torch.manual_seed(0)
    cell = HGRUCell(CHANNELS, kernel)
    drive = torch.rand(BATCH, CHANNELS, image, image)
    h = torch.rand_like(drive).requires_grad_()
    where = f"{kernel} x {kernel}, {image} x {image}"

    @torch.no_grad()
    def step() -> None:
        cell(drive, (h,))

    yield _step_times(f"hGRU step, {where}", cell, step, rounds)
    recorded = {}
    with solve_scope():
        for method in STEP_METHODS:
            set_convolution(cell, method)
            recorded[method] = cell(drive, (h,))[0]

    def product() -> None:
        new = recorded[cell.excitation.method]
        torch.autograd.grad(new, h, drive, retain_graph=True)

    yield _step_times(f"its vector-Jacobian product, {where}", cell, product, rounds)


def _step_times(name: str, cell: nn.Module, work: Callable[[], None], rounds: int) -> StepTimes:
    times = _in_turn(cell, work, STEP_METHODS, rounds)
    seconds = {method: median(row[method] for row in times) for method in STEP_METHODS}
    return StepTimes(name, seconds, median(row["direct"] / row["auto"] for row in times))


def _in_turn(
    module: nn.Module,
    work: Callable[[], None],
    methods: Sequence[str],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> list[dict[str, float]]:
    """Seconds of `work` with the convolutions in `module` set to each method in turn, one row a round."""

    def by(method: str) -> float:
        for part in module.modules():
            if isinstance(part, HorizontalConv2d):
                part.set_method(method)
        start = clock()
        work()
        return clock() - start

    with solve_scope():
        for method in methods:
            by(method)
        # Whichever comes first in a round finds other things in the processor's caches, so the order turns.
        starts = (k % len(methods) for k in range(rounds))
        return [{method: by(method) for method in (*methods[k:], *methods[:k])} for k in starts]


def convolution_panels(rows: Iterable[MethodTimes]) -> list[Panel]:
    """Of the rows of SWEEP: time against kernel size, a curve a method and a panel an image size."""
    by_image: dict[int, list[MethodTimes]] = {}
    for row in rows:
        by_image.setdefault(row.problem.width, []).append(row)
    panels = []
    for image, found in by_image.items():
        curves = {}
        for name in ("direct", "fft", "auto"):
            times = [
                (row.problem.kernel_size, row.seconds.get(row.choice if name == "auto" else name)) for row in found
            ]
            points = [(kernel, 1000 * time) for kernel, time in times if time is not None]
            curves[name] = ([kernel for kernel, _ in points], [time for _, time in points])
        ticks = [row.problem.kernel_size for row in found]
        panels.append(Panel(f"{image} x {image} px", "kernel size, px", "time, ms", curves, log="y", ticks=ticks))
    return panels


def convolution_section(rows: Sequence[MethodTimes], steps: Iterable[StepTimes], threads: int) -> str:
    """Markdown of what the two measurements yield."""
    headers = ["kernel", "channels", "image", "batch", "precision", *(f"{name}, ms" for name in METHODS),
               "auto", "fastest", "auto / fastest"]  # fmt: skip
    table = [
        [row.problem.kernel_size, row.problem.in_channels, row.problem.width, row.problem.batch,
         str(row.dtype).removeprefix("torch."), *map(_milliseconds, map(row.seconds.get, METHODS)),
         row.choice, row.fastest, f"{row.loss:.2f}"]
        for row in rows
    ]  # fmt: skip
    step_headers = ["work", *(f"{method}, ms" for method in STEP_METHODS), "direct / auto"]
    step_table = [[row.name, *map(_milliseconds, row.seconds.values()), f"{row.ratio:.2f}"] for row in steps]
    loss = exp(mean(log(row.loss) for row in rows))
    direct = exp(mean(log(row.seconds["direct"] / row.seconds[row.fastest]) for row in rows))
    worst = max(row.loss for row in rows)
    return (
        f"A convolution and its vector-Jacobian product in the input by every method, threads: {threads}; medians "
        "over rounds in\nwhich the methods take turns. What is computed from a kernel alone is computed once a solve "
        "and counts nowhere.\n`auto` is the method that the cost model chooses, and auto / fastest what the choice "
        f"loses on this machine:\n{loss:.2f} in the geometric mean over the rows and {worst:.2f} at worst; always "
        f"direct would lose {direct:.2f}.\n\n{markdown_table(headers, table)}\n\n"
        "A step of the hGRU, which holds two such convolutions, without a graph, and its vector-Jacobian product; the "
        f"last column\nis the median of the ratios.\n\n{markdown_table(step_headers, step_table)}"
    )


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1000 * seconds:.2f}"
