"""What a C-RBP training step costs as the work grows, to the sizes of the paper and beyond.

N: samples; S x S: image size; E: kernel size.
"""

import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from crbp_d2.cells import HGRUCell
from crbp_d2.layers import cost_model
from crbp_d2.recurrence import Recurrence
from tools.page import markdown_table

from .memory import measure_live_peaks
from .plots import Panel
from .training_step import Problem, mask_problem, pathfinder_problem, recurrence_step, time_interleaved

ROIS, BATCHES, SIDES, KERNELS = (8, 32, 128, 800), (1, 2, 4, 8), (64, 128, 256, 512), (3, 7, 15, 23, 31)
STEPS = (5, 20, 80, 200)
# Where RoIs grow: so many of them at once, and a solve short enough for 800.
CHUNK, ROI_STEPS, ROI_TERMS = 64, 5, 3
# RoIs where steps grow.
STEP_ROIS = 4
# Of the Pathfinder hGRU where kernels grow, and side where batches do.
BATCH, SIDE = 2, 100
# A first step of more seconds is the only one.
LONG = 15.0
# What is computed directly though a Fourier transform would be faster.
LIMITED = "direct, for memory"


@dataclass(frozen=True)
class Growth:
    """One measurement at growing values.

    name: what grows. seconds: of a training step, of the processor. methods: how its convolutions are computed; empty:
    not told. memory: bytes of the tensors alive at most; empty: not measured.
    """

    name: str
    values: Sequence[float]
    seconds: Sequence[float]
    methods: Sequence[str] = ()
    memory: Sequence[int] = ()

    @property
    def exponents(self) -> dict[str, float]:
        """Slopes of fits in logarithms, of all values with one method each; "" where no method is told."""
        return {method: float(self._line(method)[0]) for method in self._fitted()}

    @property
    def line(self) -> tuple[float, float]:
        """Seconds of the fit seconds = a + b value: (a, b), with equal relative weights."""
        b, a = np.polyfit(self.values, self.seconds, 1, w=1 / np.asarray(self.seconds))
        return float(a), float(b)

    def power_laws(self) -> dict[str, tuple[list[float], list[float]]]:
        """By method: values and seconds of the fit."""
        laws = {}
        for method in self._fitted():
            values = [v for v, m in zip(self.values, self._methods(), strict=True) if m == method]
            laws[method] = values, np.exp(np.polyval(self._line(method), np.log(values))).tolist()
        return laws

    def _methods(self) -> Sequence[str]:
        return self.methods or [""] * len(self.values)

    def _fitted(self) -> list[str]:
        methods = self._methods()
        return [method for method in dict.fromkeys(methods) if methods.count(method) > 1]

    def _line(self, method: str) -> np.ndarray:
        chosen = [k for k, m in enumerate(self._methods()) if m == method]
        values, seconds = ([numbers[k] for k in chosen] for numbers in (self.values, self.seconds))
        return np.polyfit(np.log(values), np.log(seconds), 1)


def measure_work(
    rois: Sequence[int] = ROIS,
    batches: Sequence[int] = BATCHES,
    sides: Sequence[int] = SIDES,
    kernels: Sequence[int] = KERNELS,
    steps: Sequence[int] = STEPS,
    repeats: int = 3,
    side: int = SIDE,
) -> list[Growth]:
    """Training steps of the mask cell by RoIs and steps, of the Pathfinder hGRU by batch, side and kernel.

    Args:
        side: of the images where batch and kernel grow.
    """

    def hgru(batch: int, side: int, kernel: int = 15) -> Problem:
        problem = pathfinder_problem(batch, size=side)
        return Problem("", HGRUCell(problem.cell.channels, kernel), problem.drive, problem.bound, problem.reduction,
                       problem.weight)  # fmt: skip

    def of(problem: Problem, **settings) -> tuple[Problem, Recurrence]:
        return problem, problem.rule(**settings)

    few = {"steps": ROI_STEPS, "num_terms": ROI_TERMS, "chunk_size": CHUNK}
    works: dict[str, tuple[Sequence[int], Callable]] = {
        "RoIs of the mask cell": (rois, lambda n: of(mask_problem(n), **few)),
        "steps of the mask cell": (steps, lambda t: of(mask_problem(STEP_ROIS), steps=t)),
        "batch": (batches, lambda n: of(hgru(n, side))),
        "image side, px": (sides, lambda s: of(hgru(1, s))),
        "kernel size, px": (kernels, lambda e: of(hgru(BATCH, side, e))),
    }
    methods = {
        "image side, px": [method_of(hgru(1, s)) for s in sides],
        "kernel size, px": [method_of(hgru(BATCH, side, e)) for e in kernels],
    }
    growths = []
    for name, (values, build) in works.items():
        seconds = _grow(values, build, repeats)
        memory: Sequence[int] = ()
        if values is steps:
            memory = list(measure_live_peaks("crbp", steps, STEP_ROIS).values())
        growths.append(Growth(name, values, seconds, methods.get(name, ()), memory))
    return growths


def method_of(problem: Problem) -> str:
    """How the cost model has an hGRU's convolutions computed."""
    batch, channels, height, width = problem.drive.shape
    kernel = problem.cell.inhibition.kernel_size[0]
    shape = cost_model.Problem(batch, channels, channels, height, width, kernel)
    given = problem.drive.dtype, problem.drive.device.type
    fits = cost_model.supports("fft", shape) or kernel < cost_model.SMALLEST_KERNEL
    return cost_model.choose_method(shape, *given) if fits else LIMITED


def _grow(
    values: Sequence[int], build: Callable[[int], tuple[Problem, Recurrence]], repeats: int, long: float = LONG
) -> list[float]:
    """Median seconds of the processor over rounds, of what is short; a long step's first run is its only one."""
    runs, seconds = {}, {}
    for value in values:
        run = partial(recurrence_step, *build(value))
        start = time.process_time()
        run()
        seconds[value] = time.process_time() - start
        if seconds[value] <= long:
            runs[str(value)] = run
    if runs:
        times = time_interleaved(runs, repeats, time.process_time)
        seconds |= {int(value): median for value, (median, _) in times.items()}
    return [seconds[value] for value in values]


def growth_panels(growths: Sequence[Growth]) -> list[Panel]:
    """A panel a measurement with its power laws; where memory was measured, a line and another panel."""
    panels = []
    for growth in growths:
        curves = {"measured": (growth.values, growth.seconds)}
        if growth.memory:
            constant, slope = growth.line
            curves["line"] = growth.values, [constant + slope * value for value in growth.values]
        else:
            for method, law in growth.power_laws().items():
                curves[f"{method} power {growth.exponents[method]:.2f}".strip()] = law
        panels.append(Panel(growth.name, growth.name, "s a training step", curves, log="xy", ticks=growth.values))
        if growth.memory:
            peaks = {"measured": (growth.values, [peak / 2**20 for peak in growth.memory])}
            title = f"memory by {growth.name}"
            panels.append(Panel(title, growth.name, "MiB of tensors alive", peaks, log="x", ticks=growth.values))
    return panels


def growth_section(growths: Sequence[Growth], repeats: int = 3) -> str:
    """Markdown of what `measure_work` returns."""
    parts = [
        "C-RBP training steps of 20 evaluations and 15 products where nothing else is said. Seconds are of the "
        "processor in one thread, which other work on the machine does not lengthen as it does those of the clock: "
        f"medians of {repeats} rounds in turn after a first run, which is the only one where it took more than "
        f"{LONG:g} s. Where RoIs grow, the mask cell runs {ROI_STEPS} evaluations and {ROI_TERMS} products in chunks "
        f"of {CHUNK} (MODEL.RECURRENCE.CHUNK_SIZE), so that 800 stay affordable; where steps grow, on "
        f"{STEP_ROIS} RoIs. The Pathfinder hGRU runs 15 x 15 kernels at {SIDE} x {SIDE} px, on a batch of {BATCH} "
        "where kernels grow and of 1 where the side does. Exponents are slopes in logarithms: from the row above, and "
        "of a fit to all rows whose convolutions are computed alike."
    ]
    for growth in growths:
        rows = [
            [f"{value:g}", f"{seconds:.3f}", f"{seconds / growth.seconds[0]:.2f}", exponent]
            for value, seconds, exponent in zip(growth.values, growth.seconds, _from_above(growth), strict=True)
        ]
        headers = [growth.name, "seconds a step", "ratio", "exponent"]
        if growth.methods:
            headers.append("convolutions")
            rows = [[*row, method] for row, method in zip(rows, growth.methods, strict=True)]
        if growth.memory:
            headers.append("tensors alive, MiB")
            rows = [[*row, f"{peak / 2**20:.1f}"] for row, peak in zip(rows, growth.memory, strict=True)]
        parts.append(markdown_table(headers, rows))
        parts.append(_law(growth))
        if LIMITED in growth.methods:
            parts.append(
                f"'{LIMITED}': the spectrum of the weight would have more than {cost_model.LARGEST_SPECTRUM:,} "
                "elements, beyond which no Fourier transform is taken, at the price that the exponent from above shows."
            )
    return "\n\n".join(parts)


def _law(growth: Growth) -> str:
    if not growth.memory:
        exponents = (f"{e:.2f} {f'({method})' if method else ''}".strip() for method, e in growth.exponents.items())
        return f"Exponent of the fit: {', '.join(exponents)}."
    constant, slope = growth.line
    return (
        f"No power law but a line: {constant:.3f} s for products, penalty and parameters, and {1000 * slope:.1f} ms a "
        f"step. With the most steps the tensors alive take {growth.memory[-1] / growth.memory[0]:.3f} times the memory "
        "of those with the fewest."
    )


def _from_above(growth: Growth) -> list[str]:
    pairs = itertools.pairwise(zip(growth.values, growth.seconds, strict=True))
    return ["-", *(f"{math.log(t / s) / math.log(w / v):.2f}" for (v, s), (w, t) in pairs)]
