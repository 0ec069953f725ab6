"""Cost as the work grows."""

import pytest

from tools.benchmarks.growth import (
    Growth,
    growth_panels,
    growth_section,
    measure_layouts,
    measure_work,
    measure_workers,
)


def test_every_growing_value_is_measured():
    growths = measure_work(rois=(1, 2), batches=(1, 2), sides=(6, 8), kernels=(3, 5), repeats=1, side=6)
    assert [list(growth.values) for growth in growths] == [[1, 2], [1, 2], [6, 8], [3, 5]]
    assert [growth.power for growth in growths] == [True, True, True, False]
    for growth in growths:
        assert len(growth.measured) == 2 and min(growth.measured) > 0


def test_the_exponent_is_that_of_the_power_law():
    assert Growth("side", (1, 2, 4), (3, 12, 48)).exponent == pytest.approx(2)
    assert Growth("side", (1, 2, 4), (3, 3, 3)).exponent == pytest.approx(0)


def test_loaders_are_timed_after_their_workers_have_started(monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr("tools.benchmarks.growth.time.perf_counter", lambda: next(clock) * 0.5)
    drawn = {}

    def build(workers):
        drawn[workers] = 0
        while True:
            drawn[workers] += 1
            yield ["stimulus"] * 4

    growth = measure_workers(build, workers=(0, 2), batches=5, rounds=1)
    assert list(growth.measured) == [40, 40] and drawn == {0: 1 + 5, 2: 7 + 5}


def test_processes_share_a_batch():
    layouts = measure_layouts(layouts=((1, 1), (2, 1)), batch=2, side=6, steps=1)
    assert list(layouts) == [(1, 1), (2, 1)] and min(layouts.values()) > 0


def test_section_and_panels():
    growths = [Growth("batch", (1, 4), (0.5, 2.0), power=True), Growth("workers", (0, 1), (10, 15), rate="stimuli/s")]
    layouts = {(1, 1): 2.0, (1, 2): 3.0, (2, 1): 3.5}
    text = growth_section(growths, layouts, threads=2)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    assert ["4", "2.000", "4.00"] in rows and ["1", "15.0", "1.50"] in rows and ["2", "1", "3.50", "1.75"] in rows
    assert text.count("Exponent: 1.00.") == 1
    batch, workers, processes = growth_panels(growths, layouts)
    assert batch.curves["power 1.00"] == ((1, 4), pytest.approx([0.5, 2.0])) and list(workers.curves) == ["measured"]
    assert processes.curves == {"1 process": ((1, 2), (2.0, 3.0)), "2 processes": ((2,), (3.5,))}
