"""Bytes of the tensors that are alive in a training step, as the CPU's allocator counts them.

Unlike the memory of the process, they include neither other libraries' memory nor idle memory. They are the same at
every run on one machine; on another one the convolutions may take other workspaces.
"""

import gc
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

from torch.profiler import ProfilerActivity, profile


def live_peak(step: Callable[[], object]) -> int:
    """Maximum bytes of the tensors alive during a call, above those alive before."""
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
