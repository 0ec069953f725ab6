"""Cost of a C-RBP training step as the work grows, to the sizes of the paper and beyond.

N: samples; S x S: image size; E: kernel size.
"""

import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from crbp_d2.cells import HGRUCell
from crbp_d2.layers import cost_model
from crbp_d2.recurrence import Recurrence

from .memory import measure_live_peaks
from .tables import Table
from .training_step import Problem, mask_problem, pathfinder_problem, recurrence_step, time_interleaved

ROIS, BATCHES, SIDES, KERNELS = (8, 32, 128), (1, 2, 4, 8), (64, 128, 256, 512), (3, 7, 15, 23, 31)
STEPS = (5, 20, 80, 200)
# A short solve where RoIs grow, and the number of RoIs where steps do.
ROI_STEPS, ROI_TERMS, STEP_ROIS = 5, 3, 4
# Batch of the Pathfinder hGRU where kernels grow, and side where batches do.
BATCH, SIDE = 2, 100
# A first step of more seconds is the only one.
LONG = 15.0


@dataclass(frozen=True)
class Growth:
    """One measurement at growing values.

    name: the quantity that grows. seconds: processor time of a training step. methods: of its convolutions, or empty.
    memory: peak of the tensors alive in bytes, or empty.
    """

    name: str
    values: Sequence[float]
    seconds: Sequence[float]
    methods: Sequence[str] = ()
    memory: Sequence[int] = ()

    @property
    def exponents(self) -> list[float]:
        """Slopes in logarithms between neighboring values."""
        pairs = itertools.pairwise(zip(self.values, self.seconds, strict=True))
        return [math.log(t / s) / math.log(w / v) for (v, s), (w, t) in pairs]


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
        side: side of the images where batch and kernel grow.
    """

    def hgru(batch: int, side: int, kernel: int = 15) -> Problem:
        problem = pathfinder_problem(batch, size=side)
        return Problem("", HGRUCell(problem.cell.channels, kernel), problem.drive, problem.bound, problem.reduction,
                       problem.weight)  # fmt: skip

    def of(problem: Problem, **settings) -> tuple[Problem, Recurrence]:
        return problem, problem.rule(**settings)

    few = {"steps": ROI_STEPS, "num_terms": ROI_TERMS}
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
    """The cost model's choice for an hGRU's convolutions."""
    batch, channels, height, width = problem.drive.shape
    shape = cost_model.Problem(batch, channels, channels, height, width, problem.cell.inhibition.kernel_size[0])
    return cost_model.choose_method(shape, problem.drive.dtype, problem.drive.device.type)


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


def growth_table(growths: Sequence[Growth]) -> Table:
    """A row a value, with the exponent of a power law from the row above."""
    rows = []
    for growth in growths:
        columns = [growth.values, growth.seconds, ["-", *(f"{e:.2f}" for e in growth.exponents)]]
        columns.append(growth.methods or ["-"] * len(growth.values))
        columns.append([f"{m / 2**20:.1f}" for m in growth.memory] or ["-"] * len(growth.values))
        for value, seconds, exponent, method, memory in zip(*columns, strict=True):
            ratio = seconds / growth.seconds[0]
            rows.append([growth.name, f"{value:g}", f"{seconds:.3f}", f"{ratio:.2f}", exponent, method, memory])
    return Table(["grows", "value", "seconds a step", "ratio", "exponent", "convolutions", "tensors alive, MiB"], rows)
