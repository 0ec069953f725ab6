"""Inference and training with given numbers of detections and positive RoIs."""

import pytest
import torch

from crbp_d2.recurrence import FixedSteps
from crbp_d2.recurrence.cell_step import CellStep
from tools.benchmarks import many_objects
from tools.benchmarks.many_objects import (
    ScriptedExit,
    given_detections,
    measure_exits,
    measure_inference,
    measure_training,
    quantiles,
    ratios_table,
)
from tools.benchmarks.whole_model import inputs_for, model_of

TINY = ("MODEL.RECURRENCE.EARLY_STOP.ENABLED", True)
SIZE = (64, 96)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return model_of("quick/panoptic_R18_crbp_toy.yaml", *TINY).eval()


def test_as_many_masks_as_given_detections(model):
    inputs = inputs_for(SIZE, 7)
    with torch.no_grad(), given_detections(model, SIZE, 7):
        found = model(inputs)[0]["instances"]
        again = model(inputs)[0]["instances"]
    assert len(found) == len(model.solve_stats.sample_steps) == 7
    assert torch.equal(found.pred_boxes.tensor, inputs[0]["instances"].gt_boxes.tensor)
    assert torch.equal(found.pred_boxes.tensor, again.pred_boxes.tensor)
    assert found.scores[0] == pytest.approx(0.99) and found.scores[-1] == pytest.approx(0.05)
    with torch.no_grad():
        assert len(model(inputs)[0]["instances"]) != 7


def test_samples_leave_after_the_given_steps():
    halves = CellStep(lambda drive, state: (state[0] / 2 + drive,), torch.ones(5, 1), inference=True)
    solution = ScriptedExit(FixedSteps(4), [3, 1, 3, 1, 3]).solve(halves, (torch.zeros(5, 1),))
    assert solution.stats.sample_steps.tolist() == [3, 1, 3, 1, 3]
    assert solution.state[0].flatten().tolist() == [1.75, 1, 1.75, 1, 1.75]


def test_quantiles_keep_the_distribution():
    drawn = quantiles([9] * 10 + [1] * 30 + [2] * 60, 10)
    assert sorted(drawn) == [1, 1, 1, 2, 2, 2, 2, 2, 2, 9]
    assert drawn != sorted(drawn) and drawn == quantiles([1] * 30 + [2] * 60 + [9] * 10, 10)


def test_inference_is_measured_at_every_number(model):
    found = measure_inference({"a": model, "b": model}, (2, 3), 1, SIZE)
    assert list(found) == [2, 3] and all(set(medians) == {"a", "b"} for medians in found.values())
    assert len(model.solve_stats.sample_steps) == 3


def test_training_is_measured_at_every_number_of_positive_rois(model, monkeypatch):
    seen = []

    def step(model, inputs, clock):
        seen.append(len(inputs[0]["instances"]))
        return {"whole": 1.0}

    monkeypatch.setattr(many_objects, "training_step", step)
    built = []
    found = measure_training(lambda count: built.append(count) or {"a": model, "b": model}, (2, 4), SIZE, repeats=2)
    assert built == [2, 4] and seen == [2] * 6 + [4] * 6 and list(found) == [2, 4]


def test_steps_and_quality_are_of_the_solver_and_of_all_steps(model, monkeypatch):
    class Evaluator:
        def __init__(self, name):
            assert name == "scenes"

        def reset(self):
            self.steps = []

        def process(self, inputs, outputs):
            self.steps += model.solve_stats.sample_steps.tolist()

        def evaluate(self):
            return {"panoptic_seg": {"PQ": sum(self.steps)}}

    monkeypatch.setattr(many_objects, "PanopticEvaluator", Evaluator)
    early = model.roi_heads.mask_head.recurrence.solver
    with given_detections(model, SIZE, 3):
        exits, quality, full = measure_exits(model, [inputs_for(SIZE, 3)] * 2, "scenes")
    assert len(exits) == 6 and quality == sum(exits) and full == 6 * early.steps
    assert model.roi_heads.mask_head.recurrence.solver is early


def test_ratios_are_to_the_first_model_of_the_same_number():
    found = {
        n: {
            "feedforward": {"mask head": 1.0, "whole": 4.0},
            "other": {"mask head": n, "series": 1.0, "penalty": 0.5, "whole": 6.0},
        }
        for n in (2, 3)
    }
    rows = ratios_table(found, "RoIs").rows
    assert rows[-1] == [3, "other", "4.50", "4.50", "6.00", "1.50"]
