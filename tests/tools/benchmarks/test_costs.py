"""Memory and whole models on a page."""

import pytest
import torch
from helpers.problems import only_with_penalty

from crbp_d2.recurrence import learning_rule
from tools.benchmarks import memory
from tools.benchmarks.live_memory import BACKWARD, FORWARD, PENALTY, SERIES, Phase, live_memory, phases_of
from tools.benchmarks.memory import (
    RecurrentPart,
    StepCost,
    measure_memory,
    measure_recurrent_parts,
    memory_tables,
    recurrent_part_table,
)
from tools.benchmarks.training_step import mask_problem
from tools.benchmarks.whole_model import (
    compare_models,
    inference,
    inputs_for,
    model_of,
    parts_table,
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


@pytest.mark.parametrize("rule, phases", [("bptt", 2), ("rbp", 3), ("crbp", 4)])
def test_phases_of_a_training_step(rule, phases):
    problem = mask_problem(2, 8, 10)
    recurrence = learning_rule(rule, problem.cell, steps=2, **only_with_penalty(rule, bound=problem.bound))
    penalty = recurrence.penalty
    found = live_memory(problem, recurrence)
    assert (
        list(found)
        == ([FORWARD, BACKWARD], [FORWARD, SERIES, BACKWARD], [FORWARD, PENALTY, SERIES, BACKWARD])[phases - 2]
    )
    assert recurrence.penalty is penalty
    transpose = getattr(recurrence.gradient, "transpose", None)
    assert transpose is None or "solve" not in vars(transpose)


def test_a_moment_belongs_to_the_innermost_phase():
    spans = {FORWARD: (0, 10), PENALTY: (6, 8), BACKWARD: (20, 30), SERIES: (22, 25)}
    events = [{"name": name, "ts": start, "dur": end - start} for name, (start, end) in spans.items()]
    # The penalty ends with the forward run; what the loss takes, at 15, belongs to no phase.
    changes = {1: 100, 5: -30, 7: 50, 9: -10, 15: 1000, 21: 1, 23: 400, 24: -300, 29: -1100}
    events += [{"name": "[memory]", "ts": ts, "args": {"Bytes": size}} for ts, size in reversed(changes.items())]
    assert phases_of(events) == {
        FORWARD: Phase(100, 70),
        PENALTY: Phase(120, 110),
        SERIES: Phase(1511, 1211),
        BACKWARD: Phase(1111, 111),
    }


def test_recurrent_part_is_what_an_roi_more_takes(monkeypatch):
    monkeypatch.setattr(memory, "_fresh_processes", SameProcess)
    monkeypatch.setattr(memory, "_measure", lambda rule, steps, samples: StepCost(rule, steps, 1.0, 1000 + 7 * samples))
    monkeypatch.setattr(
        memory,
        "_measure_live",
        lambda rule, samples: {FORWARD: Phase(50 + 3 * samples, 20 + samples), BACKWARD: Phase(10 + 5 * samples, 0)},
    )
    (part,) = measure_recurrent_parts(rules=("rbp",), samples=50)
    # The peak of the step is the backward pass', whose growth therefore counts.
    assert part == RecurrentPart("rbp", 7, 5, {FORWARD: Phase(3, 1), BACKWARD: Phase(5, 0)})


def test_recurrent_parts_are_compared_with_the_first():
    phases = {FORWARD: Phase(2 * 2**20, 2**20), BACKWARD: Phase(3 * 2**20, 0)}
    parts = [RecurrentPart("bptt", 60 * 2**20, 50 * 2**20, phases), RecurrentPart("rbp", 10 * 2**20, 5 * 2**20, phases)]
    first, second = recurrent_part_table(parts).rows
    assert second == ["rbp", "10.00", "6.0", "5.00", "10.0", "2.00 / 1.00", "-", "-", "3.00 / 0.00"]
    assert first[:5] == ["bptt", "60.00", "1.0", "50.00", "1.0"]


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
    names = [row[0] for row in parts_table(medians).rows]
    assert "series" in names and names[-1] == "ratio"
    assert set(inference(models["feedforward"], inputs)) >= {"backbone", "whole"}
