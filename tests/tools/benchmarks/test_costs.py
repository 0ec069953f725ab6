"""Memory and whole models on a page."""

import pytest
import torch

from tools.benchmarks import memory
from tools.benchmarks.memory import (
    RecurrentPart,
    StepCost,
    live_peak,
    measure_memory,
    measure_recurrent_parts,
    memory_tables,
    peak_of,
    recurrent_part_table,
)
from tools.benchmarks.training_step import mask_problem
from tools.benchmarks.whole_model import (
    compare_models,
    inference,
    inputs_for,
    model_of,
    training_step,
)


class SameProcess:
    """A pool that runs its calls where it is: what is measured is made up here, as real peaks scatter."""

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    map = staticmethod(map)


def test_every_rule_is_measured_at_every_number_of_steps(monkeypatch):
    found = iter((100, 350, 7, 207))
    monkeypatch.setattr(memory, "_fresh_processes", SameProcess)
    monkeypatch.setattr(memory, "_start_watching", lambda: next(found))
    monkeypatch.setattr(memory, "_peak", lambda: next(found))
    monkeypatch.setattr(memory, "mask_problem", lambda samples: mask_problem(samples, 8, 4))
    costs = measure_memory(rules=("bptt",), steps=(1, 4))
    assert [(cost.rule, cost.steps, cost.peak) for cost in costs] == [("bptt", 1, 250), ("bptt", 4, 200)]


def test_memory_tables_compare_the_rules():
    peaks = {("bptt", 5): 50, ("bptt", 20): 200, ("bptt", 80): 800, ("crbp", 5): 20, ("crbp", 20): 20, ("crbp", 80): 21}
    costs = [StepCost(*key, seconds=key[1] / 10, peak=peak * 2**20) for key, peak in peaks.items()]
    tables = memory_tables(costs)
    assert tables["memory"].rows[0] == ["bptt", "50", "200", "800"]
    assert tables["memory_time"].rows[1] == ["crbp", "1.0", "4.0", "16.0"]


def test_peak_of_allocations_in_the_order_of_time():
    changes = {1: 100, 5: -30, 7: 50, 9: -10, 21: 1, 23: 400, 24: -300}
    events = [{"name": "[memory]", "ts": ts, "args": {"Bytes": size}} for ts, size in reversed(changes.items())]
    assert peak_of([*events, {"name": "forward", "ts": 0}]) == 511
    # Two tensors of 4,000 bytes at once.
    assert 8000 <= live_peak(lambda: torch.zeros(1000) + torch.zeros(1000)) < 16_000


def test_the_part_of_an_roi_is_a_slope(monkeypatch):
    monkeypatch.setattr(memory, "_fresh_processes", SameProcess)
    monkeypatch.setattr(memory, "_measure", lambda rule, steps, samples: StepCost(rule, steps, 1.0, 1000 + 7 * samples))
    monkeypatch.setattr(memory, "_live_peak", lambda rule, samples, steps: 50 + 5 * samples)
    assert measure_recurrent_parts(rules=("rbp",), samples=50) == [RecurrentPart("rbp", 7, 5)]
    parts = [RecurrentPart("bptt", 60 * 2**20, 50 * 2**20), RecurrentPart("rbp", 10 * 2**20, 5 * 2**20)]
    assert recurrent_part_table(parts).rows == [
        ["bptt", "60.00", "1.0", "50.00", "1.0"],
        ["rbp", "10.00", "6.0", "5.00", "10.0"],
    ]


@pytest.fixture(scope="module")
def models():
    torch.manual_seed(0)
    small = ("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 16, "MODEL.RECURRENCE.STEPS", 2)
    return {"feedforward": model_of("panoptic_R50_baseline.yaml", *small[:2]),
            "C-RBP": model_of("panoptic_R50_crbp.yaml", *small)}  # fmt: skip


def test_parts_of_a_training_step_add_up(models):
    inputs = inputs_for((96, 128), rois=4)
    recurrence = models["C-RBP"].roi_heads.mask_head.recurrence
    kept = recurrence.penalty
    medians = compare_models(models, inputs, training_step, repeats=1)
    for name, parts in medians.items():
        inside = {part: value for part, value in parts.items() if part not in ("whole", "ratio")}
        assert all(value > 0 for value in inside.values()) and sum(inside.values()) <= parts["whole"]
        assert ("series" in parts) == ("penalty" in parts) == (name == "C-RBP")
    assert medians["feedforward"]["ratio"] == 1 and recurrence.penalty is kept
    assert "solve" not in vars(recurrence.gradient.transpose)
    assert set(inference(models["feedforward"], inputs)) >= {"backbone", "whole"}
