"""Measurements on a GPU, the most telling first: steps, launches, early exit, graphs, convolutions, memory, models."""

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from crbp_d2.layers.convolution import set_convolution
from crbp_d2.layers.cost_model import Problem
from crbp_d2.recurrence import learning_rule

from .against_torchdeq import our_state, torchdeq_state
from .convolution import PROBLEMS, convolution_table, cost_rows, measure_methods
from .many_objects import (
    DETECTIONS,
    POSITIVES,
    inference_models,
    measure_inference,
    measure_training,
    ratios_table,
    training_models,
)
from .tables import Table
from .training_step import ACCELERATED, STEPS, TERMS, mask_problem, pathfinder_problem, plain_step, recurrence_step
from .training_step import Problem as TrainingProblem
from .whole_model import IMAGE

# name -> (TF32, autocast)
PRECISIONS: Mapping[str, tuple[bool, torch.dtype | None]] = {
    "float32": (False, None),
    "TF32": (True, None),
    "bfloat16": (True, torch.bfloat16),
    "float16": (True, torch.float16),
}
DEQ_TOL = 1e-3


def kernels_of(run: Callable[[], object]) -> int:
    """Kernels that a call launches, as the profiler counts them."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiled:
        run()
        torch.cuda.synchronize()
    return sum(event.device_type == torch.autograd.DeviceType.CUDA for event in profiled.events())


def waits_of(run: Callable[[], object]) -> int:
    """Waits of the host for the device within a call, as torch's sync debug mode reports them."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing" in str(warning.message) for warning in caught)


@dataclass(frozen=True)
class Work:
    """The sizes of what is measured.

    problems: by name in ACCELERATED.
    memory_steps: numbers of steps at which peaks are measured.
    counters: kernels and waits of a call.
    compile: makes a compiled cell.
    """

    repeats: int = 7
    convolutions: Sequence[Problem] = PROBLEMS
    problems: Callable[[], Sequence[TrainingProblem]] = lambda: (mask_problem(64), pathfinder_problem(32))
    memory_steps: Sequence[int] = (1, 5, 20, 80)
    detections: Sequence[int] = DETECTIONS
    positives: Sequence[int] = POSITIVES
    image: tuple[int, int] = IMAGE
    inference_models: Callable[[], dict[str, nn.Module]] = inference_models
    training_models: Callable[[int], dict[str, nn.Module]] = training_models
    counters: tuple[Callable, Callable] = field(default=(kernels_of, waits_of))
    compile: Callable = torch.compile


def clock() -> float:
    """Seconds, after the device has finished."""
    torch.cuda.synchronize()
    return time.perf_counter()


@contextmanager
def precision(name: str) -> Iterator[None]:
    """TF32 and autocast as in PRECISIONS."""
    tf32, dtype = PRECISIONS[name]
    kept = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
    try:
        with torch.autocast("cuda", dtype=dtype or torch.float16, enabled=dtype is not None):
            yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = kept


def _median(run: Callable[[], object], repeats: int) -> float:
    seconds = []
    for _ in range(repeats):
        start = clock()
        run()
        seconds.append(clock() - start)
    return sorted(seconds)[repeats // 2]


def _row(work: Work, run: Callable[[], object]) -> list[str]:
    """Milliseconds, kernels and waits of a call, after a first one."""
    run()
    return [f"{1000 * _median(run, work.repeats):.2f}", *(str(count(run)) for count in work.counters)]


def steps(work: Work) -> Table:
    """Training steps: the plain loop, C-RBP, accelerated and, by Anderson acceleration, DEQ here and by torchdeq."""
    rows = []
    for problem in work.problems():
        on = problem.on("cuda")
        set_convolution(on.cell, "direct")
        variants: dict[str, Callable[[], object]] = {"plain loop": partial(plain_step, on)}
        for name, settings in (("crbp", {}), ("crbp, accelerated", ACCELERATED[on.name])):
            variants[name] = partial(recurrence_step, on, on.rule(**settings))
        variants |= {"deq": partial(_deq_step, on, our_state), "torchdeq": partial(_deq_step, on, torchdeq_state)}
        for kind in PRECISIONS:
            with precision(kind):
                rows += [[on.name, kind, name, *_row(work, run)] for name, run in variants.items()]
    return Table(["problem", "precision", "variant", "ms", "kernels", "waits"], rows)


def _deq_step(problem: TrainingProblem, state_of: Callable) -> None:
    tols = (DEQ_TOL,) * (2 if state_of is our_state else 1)
    state = state_of(*tols)(problem.cell, problem.drive)
    problem.loss(state, torch.zeros((), device=state.device)).backward()


def exits(work: Work) -> Table:
    """Inference of the whole model by the number of detections."""
    found = measure_inference(work.inference_models(), work.detections, work.repeats, work.image, clock)
    return ratios_table(found, "detections")


def graphs(work: Work) -> Table:
    """Inference with a fixed number of steps: eager, compiled, and replayed from a CUDA graph."""
    rows = []
    for problem in work.problems():
        on = problem.on("cuda")
        set_convolution(on.cell, "direct")
        recurrence, compiled = (
            learning_rule("crbp", cell, steps=STEPS).eval() for cell in (on.cell, work.compile(on.cell))
        )
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
        with torch.no_grad():
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                recurrence(on.drive)
            torch.cuda.current_stream().wait_stream(stream)
            with torch.cuda.graph(graph):
                recurrence(on.drive)
            variants = {"eager": partial(recurrence, on.drive), "compiled": partial(compiled, on.drive)}
            variants["graph"] = graph.replay
            rows += [[on.name, name, *_row(work, run)] for name, run in variants.items()]
    return Table(["problem", "variant", "ms", "kernels", "waits"], rows)


def convolutions(work: Work) -> Table:
    """Convolutions by method, with and without TF32; prints rows for the cost model's table."""
    rows = []
    for kind in ("float32", "TF32"):
        with precision(kind):
            found = list(measure_methods(work.convolutions, torch.float32, work.repeats, "cuda", clock))
        print(cost_rows(found, "cuda"))
        rows += found
    return convolution_table(rows)


def memory(work: Work) -> Table:
    """Peak memory of a training step by the number of steps."""
    problem = work.problems()[0].on("cuda")
    rows = []
    for rule in ("bptt", "rbp", "crbp"):
        peaks = []
        for count in work.memory_steps:
            recurrence = learning_rule(rule, problem.cell, steps=count, num_terms=TERMS)
            recurrence_step(problem, recurrence)
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            recurrence_step(problem, recurrence)
            torch.cuda.synchronize()
            peaks.append(f"{(torch.cuda.max_memory_allocated() - before) / 2**20:.0f}")
        rows.append([rule, *peaks])
    return Table(["rule, MiB", *(f"t = {count}" for count in work.memory_steps)], rows)


def training(work: Work) -> Table:
    """A training step of the whole model by the number of positive RoIs."""
    found = measure_training(work.training_models, work.positives, work.image, clock, work.repeats)
    return ratios_table(found, "positive RoIs")


# The most telling first.
PARTS: Mapping[str, Callable[[Work], Table]] = {
    "steps": steps,
    "graphs": graphs,
    "convolutions": convolutions,
    "exits": exits,
    "training": training,
    "memory": memory,
}


def measure_parts(work: Work, minutes: float, write: Callable[[str, Table], None]) -> list[str]:
    """Measure PARTS in turn and write each at once; begin none after `minutes`. The names of those left out."""
    end = time.monotonic() + 60 * minutes
    left = list(PARTS)
    while left and time.monotonic() < end:
        name = left.pop(0)
        write(name, PARTS[name](work))
    return left
