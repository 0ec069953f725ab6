"""Time and peak memory of a training step against the number of steps, and what an RoI more takes, rule by rule.

Peaks of the process are measured in one of their own each, so that none starts with what another left behind.
"""

import re
import time
import warnings
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch

from crbp_d2.recurrence import Recurrence, UnconvergedWarning, learning_rule
from crbp_d2.recurrence.rules import has_penalty

from .live_memory import PHASES, Phase, live_memory
from .tables import Table
from .training_step import Problem, mask_problem, recurrence_step

RULES = ("bptt", "tbptt", "rbp", "crbp", "deq")
STEPS = (1, 2, 5, 10, 20, 40, 80)
SAMPLES = 8
# The recurrent part is what an RoI more takes: between PART_SAMPLES, from which on element-wise chains are computed in
# slices, and so many times as many.
PART_RULES, PART_STEPS, PART_SAMPLES, MORE_LIVE, MORE_PROCESS = ("bptt", "rbp", "crbp"), 20, 16, 2, 4


@dataclass(frozen=True)
class StepCost:
    """seconds: of the processor in one thread, of a training step after a first one.

    peak: bytes above those in use before it.
    """

    rule: str
    steps: int
    seconds: float
    peak: int


def measure_memory(rules: Iterable[str] = RULES, steps: Iterable[int] = STEPS) -> list[StepCost]:
    """Of the mask head's cell on SAMPLES RoIs; tbptt keeps 3 steps (as many as there are if fewer)."""
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
    """What an RoI more takes in a training step, bytes: what does not depend on the number of RoIs drops out.

    process: of the process' peak. peak: of the tensors alive. phases: the same, phase by phase.
    """

    rule: str
    process: float
    peak: float
    phases: dict[str, Phase]


def measure_recurrent_parts(rules: Iterable[str] = PART_RULES, samples: int = PART_SAMPLES) -> list[RecurrentPart]:
    """Of the mask head's cell at PART_STEPS steps."""
    rules = list(rules)
    with _fresh_processes() as pool:
        process = [list(pool.map(_measure, rules, [PART_STEPS] * len(rules), [count] * len(rules)))
                   for count in (samples, MORE_PROCESS * samples)]  # fmt: skip
    live = [[_measure_live(rule, count) for rule in rules] for count in (samples, MORE_LIVE * samples)]
    parts = []
    for rule, few, many, phases, more in zip(rules, *process, *live, strict=True):
        added = (MORE_LIVE - 1) * samples
        slopes = {name: Phase((more[name].peak - phase.peak) / added, (more[name].end - phase.end) / added)
                  for name, phase in phases.items()}  # fmt: skip
        peaks = [max(phase.peak for phase in part.values()) for part in (phases, more)]
        slope = (many.peak - few.peak) / ((MORE_PROCESS - 1) * samples)
        parts.append(RecurrentPart(rule, slope, (peaks[1] - peaks[0]) / added, slopes))
    return parts


def measure_live_peaks(rule: str = "crbp", steps: Iterable[int] = (5, 80), samples: int = SAMPLES) -> dict[int, int]:
    """Steps -> bytes of the tensors alive at most in a training step."""
    return {count: max(phase.peak for phase in _measure_live(rule, samples, count).values()) for count in steps}


def _measure_live(rule: str, samples: int, steps: int = PART_STEPS) -> dict[str, Phase]:
    problem = mask_problem(samples)
    return live_memory(problem, _recurrence(rule, steps, problem))


def _recurrence(rule: str, steps: int, problem: Problem) -> Recurrence:
    penalty = {"bound": problem.bound, "reduction": problem.reduction} if has_penalty(rule) else {}
    return learning_rule(rule, problem.cell, steps=steps, truncation=min(3, steps), **penalty)


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
    """MiB an additional RoI takes under each rule: peaks, and at most within / at the end of each phase."""
    first = parts[0]

    def mib(size: float) -> str:
        return f"{size / 2**20:.2f}"

    def phase(part: RecurrentPart, name: str) -> str:
        return f"{mib(part.phases[name].peak)} / {mib(part.phases[name].end)}" if name in part.phases else "-"

    headers = ["rule", "process", f"{first.rule} relative", "tensors", f"{first.rule} relative", *PHASES]
    return Table(
        headers,
        [
            [p.rule, mib(p.process), f"{first.process / p.process:.1f}", mib(p.peak), f"{first.peak / p.peak:.1f}",
             *(phase(p, name) for name in PHASES)]
            for p in parts
        ],
    )  # fmt: skip
