"""Cost as the work grows."""

from dataclasses import replace

import pytest

from crbp_d2.cells import HGRUCell
from crbp_d2.layers import cost_model
from tools.benchmarks import growth as growing
from tools.benchmarks.growth import Growth, growth_table, measure_work, method_of
from tools.benchmarks.training_step import mask_problem, pathfinder_problem


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


def test_the_method_is_the_cost_models_choice():
    shape = cost_model.Problem(1, 25, 25, 64, 64, 15)
    problem = pathfinder_problem(1, size=64)
    assert method_of(problem) == cost_model.choose_method(shape, problem.drive.dtype, "cpu") == "fft"
    assert method_of(replace(problem, cell=HGRUCell(25, 3))) == "direct"


def test_exponents_are_from_the_row_above():
    growths = [
        Growth("side", (1, 2, 4), (3.0, 12.0, 12.0), methods=("direct", "fft", "fft")),
        Growth("steps", (10, 20), (1.0, 1.5), memory=(2**20, 2 * 2**20)),
    ]
    assert growths[0].exponents == [pytest.approx(2), pytest.approx(0)]
    rows = growth_table(growths).rows
    assert rows[1] == ["side", "2", "12.000", "4.00", "2.00", "fft", "-"]
    assert rows[-1] == ["steps", "20", "1.500", "1.50", "0.58", "-", "2.0"]
