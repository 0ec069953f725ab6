"""Cost as the work grows."""

from dataclasses import replace

import numpy as np
import pytest

from crbp_d2.cells import HGRUCell
from crbp_d2.layers import cost_model
from tools.benchmarks import growth as growing
from tools.benchmarks.growth import LIMITED, Growth, growth_panels, growth_section, measure_work, method_of
from tools.benchmarks.training_step import mask_problem, pathfinder_problem


def rows_of(text):
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]


def test_every_growing_value_is_measured(monkeypatch):
    monkeypatch.setattr(growing, "mask_problem", lambda samples: mask_problem(samples, 8, 4))
    monkeypatch.setattr(growing, "measure_live_peaks", lambda rule, steps, samples: dict.fromkeys(steps, 7))
    values = {"rois": (1, 2), "steps": (2, 3), "batches": (1, 2), "sides": (6, 8), "kernels": (3, 5)}
    growths = measure_work(**values, repeats=1, side=6)
    assert [growth.values for growth in growths] == list(values.values())
    assert [len(growth.methods) for growth in growths] == [0, 0, 0, 2, 2]
    assert [list(growth.memory) for growth in growths] == [[], [7, 7], [], [], []]
    for growth in growths:
        assert len(growth.seconds) == 2 and min(growth.seconds) > 0


def test_a_long_step_runs_once_and_a_short_one_once_a_round_more(monkeypatch):
    now, runs = [0.0], []

    def run(value, _):
        runs.append(value)
        # The first call of a short one takes longer.
        now[0] += value + (runs.count(value) == 1)

    monkeypatch.setattr(growing, "recurrence_step", run)
    monkeypatch.setattr(growing.time, "process_time", lambda: now[0])
    assert growing._grow((1, 2, 9), lambda value: (value, None), repeats=3, long=5) == [1, 2, 10]
    assert [runs.count(value) for value in (1, 2, 9)] == [4, 4, 1]
    assert growing._grow((9,), lambda value: (value, None), repeats=3, long=5) == [9]


def test_the_exponent_is_that_of_the_power_law():
    assert Growth("side", (1, 2, 4), (3, 12, 48)).exponents == {"": pytest.approx(2)}
    assert Growth("side", (1, 2, 4), (3, 3, 3)).exponents == {"": pytest.approx(0, abs=1e-12)}
    two = Growth("side", (1, 2, 4, 8), (7, 3, 12, 48), ("direct", "fft", "fft", "fft"))
    assert two.exponents == {"fft": pytest.approx(2)}
    assert two.power_laws() == {"fft": ([2, 4, 8], pytest.approx([3, 12, 48]))}


def test_the_line_is_that_through_the_points():
    assert Growth("steps", (5, 20, 80), (0.5 + 0.1 * np.array([5, 20, 80])).tolist()).line == pytest.approx((0.5, 0.1))


@pytest.mark.parametrize("side", [64, 512])
def test_a_convolution_without_room_for_its_spectrum_is_told_apart(side):
    problem = pathfinder_problem(1, size=side)
    assert method_of(problem) == {64: "fft", 512: LIMITED}[side]
    # What the package itself computes at that size.
    shape = cost_model.Problem(1, 25, 25, side, side, 15)
    assert cost_model.choose_method(shape, problem.drive.dtype, "cpu") == {64: "fft", 512: "direct"}[side]


def test_a_small_kernel_is_direct_by_choice():
    assert method_of(replace(pathfinder_problem(1, size=512), cell=HGRUCell(25, 3))) == "direct"


def test_section_and_panels():
    growths = [
        Growth("batch", (1, 4), (0.5, 2.0)),
        Growth("steps", (10, 20), (1.0, 1.5), memory=(2**20, 2 * 2**20)),
        Growth("side", (1, 2, 4), (1.0, 4.0, 64.0), methods=("fft", "fft", LIMITED)),
    ]
    text = growth_section(growths)
    rows = rows_of(text)
    assert ["4", "2.000", "4.00", "1.00"] in rows and ["1", "0.500", "1.00", "-"] in rows
    assert ["20", "1.500", "1.50", "0.58", "2.0"] in rows and ["4", "64.000", "64.00", "4.00", LIMITED] in rows
    assert "a line: 0.500 s for" in text and "50.0 ms a step" in text and "2.000 times the memory" in text
    assert "Exponent of the fit: 2.00 (fft)." in text and f"'{LIMITED}': the spectrum" in text
    assert f"'{LIMITED}': the spectrum" not in growth_section(growths[:2])
    batch, steps, memory, side = growth_panels(growths)
    assert batch.curves["power 1.00"] == ([1, 4], pytest.approx([0.5, 2.0])) and steps.curves["line"] == (
        (10, 20),
        pytest.approx([1, 1.5]),
    )
    assert memory.curves["measured"] == ((10, 20), [1, 2]) and list(side.curves) == ["measured", "fft power 2.00"]
