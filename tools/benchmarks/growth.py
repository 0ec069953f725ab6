"""What a C-RBP training step costs as the work grows, and what more workers, threads and processes give.

N: samples; S x S: image size; E: kernel size.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from crbp_d2.cells import HGRUCell
from tools.page import markdown_table

from .plots import Panel
from .training_step import Problem, mask_problem, pathfinder_problem, recurrence_step, time_interleaved

ROIS, BATCHES, SIDES, KERNELS = (4, 8, 16, 32), (1, 2, 4, 8), (50, 75, 100, 150), (3, 5, 7, 9, 11, 15)
# Of the Pathfinder hGRU where something else grows.
BATCH, SIDE = 2, 100
WORKERS = (0, 1, 2)
# Processes and threads of each.
LAYOUTS = ((1, 1), (1, 2), (2, 1))


@dataclass(frozen=True)
class Growth:
    """One measurement at growing values.

    name: what grows. measured: seconds a step, or a rate a second (`rate`).
    power: whether a power law is fitted.
    """

    name: str
    values: Sequence[float]
    measured: Sequence[float]
    rate: str = ""
    power: bool = False

    @property
    def exponent(self) -> float:
        """Slope of the fit in logarithms."""
        return float(np.polyfit(np.log(self.values), np.log(self.measured), 1)[0])


def measure_work(
    rois: Sequence[int] = ROIS,
    batches: Sequence[int] = BATCHES,
    sides: Sequence[int] = SIDES,
    kernels: Sequence[int] = KERNELS,
    repeats: int = 3,
    side: int = SIDE,
) -> list[Growth]:
    """Seconds of a training step of the mask cell by RoIs, of the Pathfinder hGRU by batch, side and kernel.

    Args:
        side: of the images where batch and kernel grow.
    """

    def with_kernel(kernel: int) -> Problem:
        problem = pathfinder_problem(BATCH, size=side)
        return Problem("", HGRUCell(problem.cell.channels, kernel), problem.drive, problem.bound, problem.reduction,
                       problem.weight)  # fmt: skip

    return [
        _grow("RoIs of the mask cell", rois, mask_problem, repeats),
        _grow("batch", batches, lambda n: pathfinder_problem(n, size=side), repeats),
        _grow("image side, px", sides, lambda s: pathfinder_problem(BATCH, size=s), repeats),
        _grow("kernel size, px", kernels, with_kernel, repeats, power=False),
    ]


def _grow(
    name: str, values: Sequence[int], problem_of: Callable[[int], Problem], repeats: int, power: bool = True
) -> Growth:
    runs = {}
    for value in values:
        problem = problem_of(value)
        runs[str(value)] = partial(recurrence_step, problem, problem.rule())
    for run in runs.values():
        run()
    times = time_interleaved(runs, repeats)
    return Growth(name, values, [times[str(value)][0] for value in values], power=power)


def measure_workers(
    build_loader: Callable[[int], Iterable[list]], workers: Sequence[int] = WORKERS, batches: int = 30, rounds: int = 3
) -> Growth:
    """Stimuli a second from a training loader, by its workers, medians over rounds; the process does nothing else.

    Args:
        build_loader: number of workers -> endless loader of batches.
    """
    rates: dict[int, list[float]] = {count: [] for count in workers}
    for _ in range(rounds):
        for count in workers:
            iterator = iter(build_loader(count))
            # The workers are there once their first batches are.
            for _ in range(3 * count + 1):
                next(iterator)
            start = time.perf_counter()
            stimuli = sum(len(batch) for batch in islice(iterator, batches))
            rates[count].append(stimuli / (time.perf_counter() - start))
            del iterator
    return Growth("workers of the loader", workers, [statistics.median(r) for r in rates.values()], rate="stimuli/s")


class _Loss(nn.Module):
    def __init__(self, problem: Problem):
        super().__init__()
        self.problem = problem
        self.recurrence = problem.rule()

    def forward(self, drive: Tensor) -> Tensor:
        output = self.recurrence(drive)
        return self.problem.loss(output.state[0], output.penalty)


def measure_layouts(
    layouts: Sequence[tuple[int, int]] = LAYOUTS, batch: int = 8, side: int = SIDE, steps: int = 3
) -> dict[tuple[int, int], float]:
    """Images a second of the Pathfinder hGRU's training step, by (processes, threads of each), always on the CPU.

    Args:
        batch: of all processes together.
        steps: timed, after a first one.
    """
    rates = {}
    for processes, threads in layouts:
        with tempfile.TemporaryDirectory() as folder:
            mp.spawn(_work, (processes, threads, batch // processes, side, steps, folder), nprocs=processes)
            seconds = float((Path(folder) / "seconds").read_text())
        rates[processes, threads] = batch / seconds
    return rates


def _work(rank: int, processes: int, threads: int, batch: int, side: int, steps: int, folder: str) -> None:
    """One process: median seconds of a step, which ends when all processes have the gradients."""
    torch.set_num_threads(threads)
    dist.init_process_group("gloo", init_method=f"file://{folder}/init", rank=rank, world_size=processes)
    problem = pathfinder_problem(batch, size=side)
    model = DistributedDataParallel(_Loss(problem))
    seconds = []
    for _ in range(steps + 1):
        start = time.perf_counter()
        model(problem.drive).backward()
        seconds.append(time.perf_counter() - start)
    if rank == 0:
        (Path(folder) / "seconds").write_text(str(statistics.median(seconds[1:])))
    dist.destroy_process_group()


def growth_panels(growths: Sequence[Growth], layouts: dict[tuple[int, int], float]) -> list[Panel]:
    """A panel a measurement; a power law where one is fitted."""
    panels = []
    for growth in growths:
        curves = {"measured": (growth.values, growth.measured)}
        if growth.power:
            first = growth.values[0]
            line = [growth.measured[0] * (v / first) ** growth.exponent for v in growth.values]
            curves[f"power {growth.exponent:.2f}"] = growth.values, line
        panels.append(Panel(growth.name, growth.name, growth.rate or "s a training step", curves,
                            log="xy" if growth.power else "", ticks=growth.values))  # fmt: skip
    totals = sorted({processes * threads for processes, threads in layouts})
    curves = {
        f"{count} process{'es' * (count > 1)}": zip(
            *((p * t, rate) for (p, t), rate in layouts.items() if p == count), strict=True
        )
        for count in sorted({processes for processes, _ in layouts})
    }
    curves = {label: tuple(points) for label, points in curves.items()}
    return [*panels, Panel("processes", "threads of all processes together", "images/s", curves, ticks=totals)]


def growth_section(growths: Sequence[Growth], layouts: dict[tuple[int, int], float], threads: int) -> str:
    """Markdown of what the measurements return."""
    parts = [
        f"C-RBP training steps of 20 evaluations and 15 products with {threads} threads, medians of rounds in turn. "
        f"The Pathfinder hGRU\nruns a batch of {BATCH} at {SIDE} x {SIDE} px with 15 x 15 kernels where nothing else "
        "is said. Ratios are to the first value of the\nsame run, exponents are slopes of a fit in logarithms."
    ]
    for growth in growths:
        heading = growth.rate or "seconds a step"
        rows = [
            [f"{value:g}", f"{m:.3f}" if not growth.rate else f"{m:.1f}", f"{m / growth.measured[0]:.2f}"]
            for value, m in zip(growth.values, growth.measured, strict=True)
        ]
        parts.append(markdown_table([growth.name, heading, "ratio"], rows))
        if growth.power:
            parts.append(f"Exponent: {growth.exponent:.2f}.")
    first = next(iter(layouts.values()))
    rows = [[str(p), str(t), f"{rate:.2f}", f"{rate / first:.2f}"] for (p, t), rate in layouts.items()]
    parts.append(
        "Processes of DistributedDataParallel (gloo) that share a batch, on the CPU:\n\n"
        + markdown_table(["processes", "threads of each", "images/s", "ratio"], rows)
    )
    return "\n\n".join(parts)
