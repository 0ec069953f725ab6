"""Memory and whole models on a page."""

import pytest
import torch

from crbp_d2.recurrence import learning_rule
from tools.benchmarks.live_memory import BACKWARD, FORWARD, PENALTY, SERIES, Phase, live_memory
from tools.benchmarks.memory import (
    RecurrentPart,
    StepCost,
    measure_memory,
    measure_recurrent_parts,
    memory_panels,
    memory_section,
    recurrent_part_section,
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


def test_peaks_are_measured_in_a_process_of_their_own():
    costs = measure_memory(rules=("bptt",), steps=(1, 4))
    assert [(cost.rule, cost.steps) for cost in costs] == [("bptt", 1), ("bptt", 4)]
    # Three more steps hold three more states of 8 x 256 x 14 x 14 in float32 at the very least.
    assert costs[1].peak - costs[0].peak > 3 * 8 * 256 * 14 * 14 * 4
    assert costs[1].seconds > 0


def test_memory_section_compares_the_rules():
    peaks = {("bptt", 5): 50, ("bptt", 20): 200, ("bptt", 80): 800, ("crbp", 5): 20, ("crbp", 20): 20, ("crbp", 80): 21}
    costs = [StepCost(*key, seconds=key[1] / 10, peak=peak * 2**20) for key, peak in peaks.items()]
    text = memory_section(costs, {5: 1000, 80: 1024})
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    assert ["bptt", "50", "200", "800"] in rows and ["crbp", "1.0", "4.0", "16.0"] in rows
    assert "crbp at 80 steps takes 1.05 times its memory at 5;" in text and "1.024 times." in text
    assert [panel.curves["bptt"] for panel in memory_panels(costs)] == [
        ([5, 20, 80], [50, 200, 800]), ([5, 20, 80], [0.5, 2, 8])
    ]  # fmt: skip


@pytest.mark.parametrize("rule, phases", [("bptt", 2), ("rbp", 3), ("crbp", 4)])
def test_live_tensors_by_phase(rule, phases):
    """Against what each rule must hold: every state under bptt, and no more of them under the others."""
    problem = mask_problem(2, 8, 10)
    state = problem.drive.numel() * 4
    found = []
    for steps in (2, 8):
        recurrence = learning_rule(rule, problem.cell, steps=steps, bound=problem.bound)
        found.append(live_memory(problem, recurrence))
        assert list(found[-1]) == [FORWARD, PENALTY, SERIES, BACKWARD] if phases == 4 else len(found[-1]) == phases
        transpose = getattr(recurrence.gradient, "transpose", None)
        assert transpose is None or "solve" not in vars(transpose)
    few, many = (part[FORWARD].end for part in found)
    assert few > 4 * state
    if rule == "bptt":
        assert many - few > 6 * 8 * state
    else:
        assert abs(many - few) < state
    for part in found:
        assert all(phase.peak >= phase.end for phase in part.values())
        assert part[BACKWARD].end < part[FORWARD].end
    if rule == "crbp":
        assert found[0][PENALTY].end > found[0][FORWARD].end + 2 * state


def test_the_recorded_step_of_an_roi_is_among_what_is_measured():
    (part,) = measure_recurrent_parts(rules=("rbp",), samples=1)
    # The recorded step holds more than ten states.
    assert part.peak > 10 * 256 * 14 * 14 * 4


def test_recurrent_parts_are_compared_with_the_first():
    phases = {FORWARD: Phase(2 * 2**20, 2**20), BACKWARD: Phase(3 * 2**20, 0)}
    parts = [RecurrentPart("bptt", 60 * 2**20, 50 * 2**20, phases), RecurrentPart("rbp", 10 * 2**20, 5 * 2**20, phases)]
    text = recurrent_part_section(parts)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    assert ["rbp", "10.00", "6.0", "5.00", "10.0"] in rows and ["bptt", "60.00", "1.0", "50.00", "1.0"] in rows
    assert [FORWARD, "2.00 / 1.00", "2.00 / 1.00"] in rows and [PENALTY, "-", "-"] in rows


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
    table = parts_table(medians)
    assert "| series" in table and "| ratio" in table
    assert set(inference(models["feedforward"], inputs)) >= {"backbone", "whole"}
