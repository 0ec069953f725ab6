"""Time and peak memory of a training step against the number of steps, rule by rule.

Each measurement runs in a process of its own, so that none starts with what another left behind.
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

from crbp_d2.recurrence import UnconvergedWarning, learning_rule

from .page import markdown_table
from .training_step import mask_problem, recurrence_step

RULES = ("bptt", "tbptt", "rbp", "crbp", "deq")
STEPS = (1, 2, 5, 10, 20, 40, 80)
SAMPLES = 8


@dataclass(frozen=True)
class StepCost:
    """seconds: of one training step, after a first one. peak: bytes above those in use before it."""

    rule: str
    steps: int
    seconds: float
    peak: int


def measure_memory(rules: Iterable[str] = RULES, steps: Iterable[int] = STEPS) -> list[StepCost]:
    """Of the mask head's cell on SAMPLES RoIs; tbptt keeps 3 steps (as many as there are if fewer)."""
    jobs = [(rule, count) for rule in rules for count in steps]
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        return list(pool.map(_measure, *zip(*jobs, strict=True)))


def _measure(rule: str, steps: int) -> StepCost:
    problem = mask_problem(SAMPLES)
    recurrence = learning_rule(
        rule, problem.cell, steps=steps, truncation=min(3, steps), bound=problem.bound, reduction=problem.reduction
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnconvergedWarning)
        before = _start_watching()
        recurrence_step(problem, recurrence)
        peak = _peak() - before
        start = time.perf_counter()
        recurrence_step(problem, recurrence)
    return StepCost(rule, steps, time.perf_counter() - start, peak)


def _start_watching() -> int:
    """Bytes in use now; from here on the peak is kept."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak() -> int:
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else _status("VmHWM")


def _status(key: str) -> int:
    """Bytes, from what Linux says of this process."""
    return 1024 * int(re.search(rf"{key}:\s*(\d+) kB", Path("/proc/self/status").read_text())[1])


def memory_section(costs: list[StepCost]) -> str:
    """Two Markdown tables, of peaks and of times, and what the limits in them are about."""
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
        "Time, relative to that of one step under the same rule:",
        "",
        markdown_table(headers, times),
    ]
    if {("crbp", 5), ("crbp", 80), ("crbp", 20), ("bptt", 20)} <= at.keys():
        flat = at["crbp", 80].peak / at["crbp", 5].peak
        against = at["bptt", 20].peak / at["crbp", 20].peak
        lines += ["", f"crbp at 80 steps takes {flat:.2f} times its memory at 5; bptt at 20 steps takes {against:.1f} "
                  "times crbp's."]  # fmt: skip
    return "\n".join(lines)
