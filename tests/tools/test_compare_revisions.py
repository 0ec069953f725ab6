"""Comparison of two revisions."""

import math

import pytest
import torch

from tools.compare_revisions import (
    ROOT,
    largest_difference,
    model_of,
    named_weights,
    outputs_of,
    training_step,
    works_of,
)

QUICK = "configs/quick/pathfinder_hgru_crbp_instant_test.yaml"


@pytest.fixture(autouse=True)
def in_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_works_are_configs_and_checkpoints():
    works = works_of(ROOT)
    assert QUICK in works and any(work.endswith(".pth") for work in works) and not any("bases" in w for w in works)


@pytest.mark.parametrize("work", [QUICK, "configs/quick/panoptic_R18_crbp_toy.yaml"])
def test_results_repeat_and_show_a_changed_weight(work):
    first, second = (model_of(work) for _ in range(2))
    before = {**outputs_of(*first), **training_step(*first)}
    with torch.no_grad():
        next(p for name, p in second[0].named_parameters() if "predictor" in name).mul_(1.001)
    now = outputs_of(*second)
    assert 1e-6 < largest_difference({name: before[name] for name in now}, now)[0] < 1
    named_weights(second[0])
    assert largest_difference(before, {**outputs_of(*second), **training_step(*second)}) == (0, "")
    assert any("recurrence" in name and result.abs().max() > 0 for name, result in before.items())


def test_differences_are_relative_and_name_their_tensor():
    before = {"output 0": torch.tensor([1.0, 100.0]), "gradient a": torch.tensor([10.0]), "gradient b": torch.zeros(1)}
    assert largest_difference(before, before) == (0, "")
    difference, name = largest_difference(before, {**before, "output 0": torch.tensor([1.0, 101.0])})
    assert difference == pytest.approx(0.01) and name == "output 0"
    difference, name = largest_difference(before, {**before, "gradient b": torch.tensor([1e-5])})
    assert difference == pytest.approx(1e-3) and name == "gradient b"
    for changed in ({"output 0": torch.tensor([1.0, math.nan])}, {"output 0": torch.zeros(3)}, {"more": torch.ones(1)}):
        assert largest_difference(before, {**before, **changed})[0] == math.inf
