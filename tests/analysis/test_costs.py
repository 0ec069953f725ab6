"""Memory and whole models on a page."""

import pytest
import torch

from crbp_d2.analysis.memory import StepCost, measure_memory, memory_section
from crbp_d2.analysis.whole_model import compare_models, inference, inputs_for, model_of, parts_table, training_step


def test_peaks_are_measured_in_a_process_of_their_own():
    costs = measure_memory(rules=("bptt",), steps=(1, 4))
    assert [(cost.rule, cost.steps) for cost in costs] == [("bptt", 1), ("bptt", 4)]
    # Three more steps hold three more states of 8 x 256 x 14 x 14 in float32 at the very least.
    assert costs[1].peak - costs[0].peak > 3 * 8 * 256 * 14 * 14 * 4
    assert costs[1].seconds > 0


def test_memory_section_compares_the_rules():
    peaks = {("bptt", 5): 50, ("bptt", 20): 200, ("bptt", 80): 800, ("crbp", 5): 20, ("crbp", 20): 20, ("crbp", 80): 21}
    text = memory_section([StepCost(*key, seconds=key[1] / 10, peak=peak * 2**20) for key, peak in peaks.items()])
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    assert ["bptt", "50", "200", "800"] in rows and ["crbp", "1.0", "4.0", "16.0"] in rows
    assert "1.05 times its memory at 5; bptt at 20 steps takes 10.0 times" in text


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
