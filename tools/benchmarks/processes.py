"""What more threads and processes give to a training step."""

import json
import os
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from .tables import Table
from .training_step import Problem, pathfinder_problem

# Processes and threads of each.
LAYOUTS = ((1, 1), (1, 2), (2, 1), (4, 1))
BATCH, SIDE = 8, 100


@dataclass(frozen=True)
class Throughput:
    """rate: images a second of the clock. processor: seconds of all processes together, an image."""

    rate: float
    processor: float


class _Loss(nn.Module):
    def __init__(self, problem: Problem):
        super().__init__()
        self.problem = problem
        self.recurrence = problem.rule()

    def forward(self, drive: Tensor) -> Tensor:
        output = self.recurrence(drive)
        return self.problem.loss(output.state[0], output.penalty)


def measure_layouts(
    layouts: Sequence[tuple[int, int]] = LAYOUTS, batch: int = BATCH, side: int = SIDE, steps: int = 3
) -> dict[tuple[int, int], Throughput]:
    """Of the Pathfinder hGRU's training step, by (processes, threads of each), always on the CPU.

    Args:
        batch: of all processes together.
        steps: timed, after a first one.
    """
    found = {}
    for processes, threads in layouts:
        with tempfile.TemporaryDirectory() as folder:
            mp.spawn(_work, (processes, threads, batch // processes, side, steps, folder), nprocs=processes)
            taken = [json.loads((Path(folder) / f"{rank}.json").read_text()) for rank in range(processes)]
        found[processes, threads] = Throughput(
            batch / statistics.median(taken[0]["clock"]), sum(each["processor"] for each in taken) / (steps * batch)
        )
    return found


def _work(rank: int, processes: int, threads: int, batch: int, side: int, steps: int, folder: str) -> None:
    """One process: seconds of each step, which ends when all processes have the gradients, and of the processor."""
    torch.set_num_threads(threads)
    dist.init_process_group("gloo", init_method=f"file://{folder}/init", rank=rank, world_size=processes)
    problem = pathfinder_problem(batch, size=side)
    model = DistributedDataParallel(_Loss(problem))
    seconds = []
    for step in range(steps + 1):
        if step == 1:
            busy = time.process_time()
        start = time.perf_counter()
        model(problem.drive).backward()
        seconds.append(time.perf_counter() - start)
    taken = {"clock": seconds[1:], "processor": time.process_time() - busy}
    (Path(folder) / f"{rank}.json").write_text(json.dumps(taken))
    dist.barrier()
    dist.destroy_process_group()
    # With the result in its file there is nothing to wait for: threads of torch that an interpreter finds still running
    # while it ends would abort it ("terminate called without an active exception").
    os._exit(0)


def processes_table(layouts: Mapping[tuple[int, int], Throughput]) -> Table:
    """Results of `measure_layouts`, with ratios to the first layout."""
    first = next(iter(layouts.values()))
    headers = ["processes", "threads of each", "images/s", "ratio", "processor, s an image", "ratio"]
    return Table(
        headers,
        [
            [p, t, f"{found.rate:.2f}", f"{found.rate / first.rate:.2f}", f"{found.processor:.3f}",
             f"{found.processor / first.processor:.2f}"]
            for (p, t), found in layouts.items()
        ],
    )  # fmt: skip
