"""Kernels and waits of the pretended device, as upper bounds; small kernels are bound by their launches on a GPU."""

import pytest

from tools.benchmarks import launches
from tools.benchmarks.launches import ROWS

# Upper bounds: of kernels relative to the plain loop, to torchdeq, to all steps and to the eager step; of waits.
BOUNDS = {
    "C-RBP 20/15, mask cell": 1.10,
    "C-RBP 20/15, hGRU, direct convolutions": 1.10,
    "DEQ 20/20, Anderson": 1.0,
    "DEQ 20/20, Broyden": 1.0,
    "DEQ 20/20, Anderson, waits": 37,
    "DEQ 20/20, Broyden, waits": 37,
    "100 RoIs leave after 3 to 12 of 20 steps": 1.0,
    "100 RoIs leave after 3 to 12 of 20 steps, waits": 8,
    "training step, FixedSteps, direct": 0,
    "training step, FixedSteps, fft": 0,
    "training step, RandomSteps, direct": 0,
    "training step, RandomSteps, fft": 0,
    "iteration of the Trainer, panoptic C-RBP": 2,
    "iteration of the Trainer, Pathfinder crbp": 2,
    "iteration of the Trainer, Pathfinder bptt": 2,
    "iteration of the Trainer, Pathfinder progressive": 2,
    "iteration of the Trainer, Pathfinder bptt_every_step": 2,
    "compiled step without a graph, GALA": 0.6,
    "compiled step without a graph, hGRU": 1.0,
}
SLOW = ("iteration", "compiled")
NAMES = [pytest.param(name, marks=pytest.mark.slow if name.startswith(SLOW) else ()) for name in ROWS]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NAMES)
def test_kernels_and_waits(name):
    kind, _, counts = ROWS[name]
    if name.startswith("DEQ"):
        pytest.importorskip("torchdeq")
    found = counts()
    value = found.ours if kind == "waits" else found.ours / (found.baseline or found.torchdeq)
    assert value <= BOUNDS[name], found


def test_a_row_shows_what_was_counted_before(monkeypatch):
    rows = {"step, waits": ("waits", None, lambda: launches.Counts(1234, torchdeq=7))}
    monkeypatch.setattr(launches, "ROWS", rows)
    assert launches.launches_table().rows == [["step", "waits", "-", "1,234", "-", "7"]]
