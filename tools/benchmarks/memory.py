"""Time and peak memory of a training step against the number of steps, and the part of an RoI, rule by rule.

Peaks of the process are measured in one of their own each, so that none starts with what another left behind.
"""

import gc
import json
import re
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from crbp_d2.recurrence import Recurrence, UnconvergedWarning, learning_rule

from .tables import Table
from .training_step import Problem, mask_problem, recurrence_step

RULES = ("bptt", "tbptt", "rbp", "crbp", "deq")
STEPS = (1, 2, 5, 10, 20, 40, 80)
SAMPLES = 8
# The part of an RoI is a slope: between PART_SAMPLES, from which on element-wise chains are computed in
# slices, and so many times as many.
PART_RULES, PART_STEPS, PART_SAMPLES, MORE_LIVE, MORE_PROCESS = ("bptt", "rbp", "crbp"), 20, 16, 2, 4


@dataclass(frozen=True)
class StepCost:
    """The cost of a training step.

    seconds: processor time in one thread, after a first step.

    peak: bytes above those in use before it.
    """

    rule: str
    steps: int
    seconds: float
    peak: int


def measure_memory(rules: Iterable[str] = RULES, steps: Iterable[int] = STEPS) -> list[StepCost]:
    """Measure the mask head's cell on SAMPLES RoIs; tbptt keeps at most 3 steps."""
    jobs = [(rule, count) for rule in rules for count in steps]
    with _fresh_processes() as pool:
        return list(pool.map(_measure, *zip(*jobs, strict=True)))


def _fresh_processes() -> ProcessPoolExecutor:
    """One after the other, a new one of one thread for each call, with this module imported before it begins."""
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return ProcessPoolExecutor(1, context, torch.set_num_threads, (1,), max_tasks_per_child=1)


@dataclass(frozen=True)
class RecurrentPart:
    """Bytes that an additional RoI takes in a training step.

    process: slope of the peak of the process.
    tensors: slope of the peak of the tensors alive.
    """

    rule: str
    process: float
    tensors: float


def measure_recurrent_parts(rules: Iterable[str] = PART_RULES, samples: int = PART_SAMPLES) -> list[RecurrentPart]:
    """Measure the mask head's cell at PART_STEPS steps."""
    rules = list(rules)
    with _fresh_processes() as pool:
        few, many = (
            list(pool.map(_measure, rules, [PART_STEPS] * len(rules), [count] * len(rules)))
            for count in (samples, MORE_PROCESS * samples)
        )
    parts = []
    for rule, less, more in zip(rules, few, many, strict=True):
        live = [_live_peak(rule, count, PART_STEPS) for count in (samples, MORE_LIVE * samples)]
        process = (more.peak - less.peak) / ((MORE_PROCESS - 1) * samples)
        parts.append(RecurrentPart(rule, process, (live[1] - live[0]) / ((MORE_LIVE - 1) * samples)))
    return parts


def measure_live_peaks(rule: str = "crbp", steps: Iterable[int] = (5, 80), samples: int = SAMPLES) -> dict[int, int]:
    """Steps -> maximum bytes of the tensors alive in a training step."""
    return {count: _live_peak(rule, samples, count) for count in steps}


def _live_peak(rule: str, samples: int, steps: int) -> int:
    problem = mask_problem(samples)
    recurrence = _recurrence(rule, steps, problem)
    recurrence_step(problem, recurrence)
    problem.cell.zero_grad(set_to_none=True)
    return live_peak(lambda: recurrence_step(problem, recurrence))


def live_peak(step: Callable[[], object]) -> int:
    """Maximum bytes of the tensors alive during a call, above those alive before, as the CPU's allocator counts them.

    The same at every run on one machine; on another one the convolutions may take other workspaces.
    """
    # Garbage of earlier calls must not be freed in between.
    gc.collect()
    gc.disable()
    try:
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
            step()
    finally:
        gc.enable()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiled.export_chrome_trace(str(path))
        return peak_of(json.loads(path.read_text())["traceEvents"])


def peak_of(events: list[dict]) -> int:
    """Maximum of the running sum of the allocations among a profiler's events."""
    live = peak = 0
    for event in sorted((e for e in events if e.get("name") == "[memory]"), key=lambda event: event["ts"]):
        live += event["args"]["Bytes"]
        peak = max(peak, live)
    return peak


def _recurrence(rule: str, steps: int, problem: Problem) -> Recurrence:
    return learning_rule(
        rule, problem.cell, steps=steps, truncation=min(3, steps), bound=problem.bound, reduction=problem.reduction
    )


def _measure(rule: str, steps: int, samples: int = SAMPLES) -> StepCost:
    problem = mask_problem(samples)
    recurrence = _recurrence(rule, steps, problem)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnconvergedWarning)
        before = _start_watching()
        recurrence_step(problem, recurrence)
        peak = _peak() - before
        start = time.process_time()
        recurrence_step(problem, recurrence)
    return StepCost(rule, steps, time.process_time() - start, peak)


def _start_watching() -> int:
    """Bytes of this process that are in use now; from here on the peak is kept. On Linux."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak() -> int:
    return _status("VmHWM")


def _status(key: str) -> int:
    """Bytes, from what Linux says of this process."""
    return 1024 * int(re.search(rf"{key}:\s*(\d+) kB", Path("/proc/self/status").read_text())[1])


def memory_tables(costs: list[StepCost]) -> dict[str, Table]:
    """Peaks, and times relative to those of one step, by rule and number of steps."""
    rules, steps = (list(dict.fromkeys(getattr(cost, name) for cost in costs)) for name in ("rule", "steps"))
    at = {(cost.rule, cost.steps): cost for cost in costs}
    peaks = [[rule, *(f"{at[rule, t].peak / 2**20:.0f}" for t in steps)] for rule in rules]
    times = [[rule, *(f"{at[rule, t].seconds / at[rule, steps[0]].seconds:.1f}" for t in steps)] for rule in rules]
    headers = [f"t = {t}" for t in steps]
    return {"memory": Table(["rule, MiB", *headers], peaks), "memory_time": Table(["rule, ratio", *headers], times)}


def recurrent_part_table(parts: list[RecurrentPart]) -> Table:
    """MiB that an additional RoI takes under each rule, compared with the first one."""
    first = parts[0]
    headers = ["rule", "process, MiB", f"{first.rule} takes times", "tensors, MiB", f"{first.rule} takes times"]
    rows = []
    for part in parts:
        pairs = (first.process, part.process), (first.tensors, part.tensors)
        rows.append([part.rule, *(f"{v:.{d}f}" for a, b in pairs for v, d in ((b / 2**20, 2), (a / b, 1)))])
    return Table(headers, rows)
