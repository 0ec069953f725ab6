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
from tools.page import markdown_table

from .live_memory import BACKWARD, FORWARD, PENALTY, PHASES, SERIES, Phase, live_memory
from .plots import Panel
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


def memory_section(costs: list[StepCost], live: dict[int, int]) -> str:
    """Two Markdown tables, of peaks and of times, and how crbp's memory grows with the steps.

    Args:
        live: of crbp, from `measure_live_peaks`.
    """
    rules, steps = (list(dict.fromkeys(getattr(cost, name) for cost in costs)) for name in ("rule", "steps"))
    at = {(cost.rule, cost.steps): cost for cost in costs}
    peaks = [[rule, *(f"{at[rule, t].peak / 2**20:.0f}" for t in steps)] for rule in rules]
    times = [[rule, *(f"{at[rule, t].seconds / at[rule, steps[0]].seconds:.1f}" for t in steps)] for rule in rules]
    headers = ["rule", *(f"t = {t}" for t in steps)]
    lines = [
        f"A training step of t steps (mask head's cell, 256 channels, {SAMPLES} RoIs of 14 x 14), a process each.",
        "",
        "Peak memory above what was in use before, MiB:",
        "",
        markdown_table(headers, peaks),
        "",
        "Time of the processor in one thread, relative to that of one step under the same rule:",
        "",
        markdown_table(headers, times),
    ]
    few, many = min(live), max(live)
    flat = at["crbp", many].peak / at["crbp", few].peak
    lines += ["", f"crbp at {many} steps takes {flat:.2f} times its memory at {few}; of the tensors alive, which do "
              f"not scatter, {live[many] / live[few]:.3f} times."]  # fmt: skip
    return "\n".join(lines)


def memory_panels(costs: list[StepCost]) -> list[Panel]:
    """Peak and time against steps, a curve a rule."""
    by_rule = {rule: [cost for cost in costs if cost.rule == rule] for rule in dict.fromkeys(c.rule for c in costs)}
    peaks = {rule: ([c.steps for c in found], [c.peak / 2**20 for c in found]) for rule, found in by_rule.items()}
    times = {rule: ([c.steps for c in found], [c.seconds for c in found]) for rule, found in by_rule.items()}
    return [
        Panel("Peak memory", "steps", "MiB above what was in use", peaks, log="xy", ticks=STEPS),
        Panel("Time of a training step", "steps", "seconds", times, log="xy", ticks=STEPS),
    ]


def recurrent_part_section(parts: list[RecurrentPart]) -> str:
    """Markdown: what an RoI more takes under each rule, and which phase takes it."""
    first = parts[0]

    def mib(size: float) -> str:
        return f"{size / 2**20:.2f}"

    rows = [[p.rule, mib(p.process), f"{first.process / p.process:.1f}", mib(p.peak), f"{first.peak / p.peak:.1f}"]
            for p in parts]  # fmt: skip
    headers = ["rule", "process, MiB", f"{first.rule} takes times", "tensors, MiB", f"{first.rule} takes times"]
    phases = [[name, *(f"{mib(p.phases[name].peak)} / {mib(p.phases[name].end)}" if name in p.phases else "-"
                       for p in parts)] for name in PHASES]  # fmt: skip
    return "\n".join(
        [
            f"The recurrent part at {PART_STEPS} steps is what an RoI more takes, free of all that does not grow with",
            f"them: of the process' peak, between {PART_SAMPLES} and {MORE_PROCESS * PART_SAMPLES} RoIs, and of the",
            f"tensors alive, between {PART_SAMPLES} and {MORE_LIVE * PART_SAMPLES}.",
            "",
            markdown_table(headers, rows),
            "",
            "Tensors alive by phase, MiB an RoI, at most within it / at its end:",
            "",
            markdown_table(["phase", *(p.rule for p in parts)], phases),
            "",
            f"What the {FORWARD} leaves is the recorded step (under bptt all of them) and the workspace of",
            f"Winograd's convolutions; the {PENALTY} adds the graph of the product it differentiates, and its",
            f"gradients wait in the recorded step while the {SERIES} runs, before the {BACKWARD} carries both on.",
        ]
    )
