"""Bytes of the tensors that are alive in the course of a training step, as the allocator counts them.

Unlike the memory of the process, these know neither what other libraries hold nor what lies idle. They are the same
every time on one machine; on another the convolutions may take other workspaces.
"""

import gc
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from torch.profiler import ProfilerActivity, profile, record_function

from crbp_d2.recurrence import Recurrence

from .training_step import Problem

FORWARD, PENALTY, SERIES, BACKWARD = PHASES = ("forward run", "penalty", "series", "rest of the backward pass")
_ALLOCATION = "[memory]"


@dataclass(frozen=True)
class Phase:
    """Bytes above those alive before the training step. peak: within the phase. end: when it is over."""

    peak: int
    end: int


def live_memory(problem: Problem, recurrence: Recurrence) -> dict[str, Phase]:
    """Phase by phase in the order of PHASES, of a training step after a first one; without those that do not occur.

    On the CPU.
    """

    def step() -> None:
        problem.cell.zero_grad(set_to_none=True)
        with record_function(FORWARD):
            output = recurrence(problem.drive)
        loss = problem.loss(output.state[0], output.penalty)
        with record_function(BACKWARD):
            loss.backward()

    step()
    with _marked(recurrence):
        return phases_of(_events(step))


def live_peak(step: Callable[[], object]) -> int:
    """Bytes of the tensors that a call has alive at most, above those alive before. On the CPU."""
    live = peak = 0
    for event in _allocations(_events(step)):
        live += event["args"]["Bytes"]
        peak = max(peak, live)
    return peak


def _events(step: Callable[[], object]) -> list[dict]:
    """The profiler's events of a call ("traceEvents" of its trace)."""
    # What others have left behind shall not be freed in between.
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
        return json.loads(path.read_text())["traceEvents"]


def _allocations(events: list[dict]) -> list[dict]:
    """Those that say how many bytes a tensor took or gave back, by time."""
    return sorted((event for event in events if event.get("name") == _ALLOCATION), key=lambda event: event["ts"])


@contextmanager
def _marked(recurrence: Recurrence) -> Iterator[None]:
    """Has the profiler know when the penalty and the series run."""
    with ExitStack() as stack:
        if recurrence.penalty is not None:
            penalty = recurrence.penalty
            recurrence.penalty = _recorded(PENALTY, penalty)
            stack.callback(setattr, recurrence, "penalty", penalty)
        if hasattr(recurrence.gradient, "transpose"):
            transpose = recurrence.gradient.transpose
            transpose.solve = _recorded(SERIES, transpose.solve)
            stack.callback(delattr, transpose, "solve")
        yield


def _recorded(name: str, call: Callable) -> Callable:
    def run(*args, **kwargs):
        with record_function(name):
            return call(*args, **kwargs)

    return run


def phases_of(events: list[dict]) -> dict[str, Phase]:
    """The phases of a profiler's events ("traceEvents" of its trace; times in us, sizes in bytes).

    A moment belongs to the innermost phase it lies in; what only the loss allocates belongs to none.
    """
    spans = {name: (e["ts"], e["ts"] + e["dur"]) for e in events for name in PHASES if e.get("name") == name}
    if PENALTY in spans:
        # It comes last in the forward run, which ends with it.
        spans[PENALTY] = spans[PENALTY][0], spans[FORWARD][1]
    live, peaks, ends = 0, {}, {}
    for event in _allocations(events):
        live += event["args"]["Bytes"]
        inside = [name for name, (start, end) in spans.items() if start <= event["ts"] <= end]
        if inside:
            phase = min(inside, key=lambda name: spans[name][1] - spans[name][0])
            peaks[phase] = max(peaks.get(phase, 0), live)
            ends[phase] = live
    return {name: Phase(peaks[name], ends[name]) for name in PHASES if name in peaks}
