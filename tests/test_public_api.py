"""The names and calls that other people's code relies on."""

import importlib
import inspect

import pytest
import torch
from detectron2.config import get_cfg

from crbp_d2 import add_crbp_config
from crbp_d2.cells import HGRUCell
from crbp_d2.recurrence import (
    FixedSteps,
    Implicit,
    LipschitzPenalty,
    NeumannSeries,
    RandomSteps,
    Recurrence,
    learning_rule,
)

NAMES = {
    "crbp_d2.model_zoo": ("get_config", "get_config_file", "get"),
    "crbp_d2": ("add_crbp_config", "Trainer", "register_panoptic", "register_pathfinder", "register_toy_panoptic"),
    "crbp_d2.recurrence": (
        "Recurrence", "RecurrenceOutput", "FixedSteps", "RandomSteps", "Anderson", "Broyden", "Unrolled", "Truncated",
        "Implicit", "NeumannSeries", "LipschitzPenalty", "ContractionPenalty", "learning_rule", "spectral_radius",
    ),
    "crbp_d2.cells": ("HGRUCell", "GalaHGRUCell", "ConvLSTMCell", "ConvGRUCell"),
    "crbp_d2.modeling": (
        "RecurrentMaskHead", "ContourSegHead", "ContourStem", "RecurrentPanopticFPN", "RecurrentSemSegHead",
    ),
    "crbp_d2.data": (
        "PathfinderSpec", "generate_pathfinder", "PathfinderDatasetMapper", "check_panoptic_dataset",
        "check_instance_dataset",
    ),
    "crbp_d2.evaluation": ("PathfinderEvaluator", "record_states"),
}  # fmt: skip
KEYS = (
    "RULE", "STEPS", "TEST_STEPS", "TRUNCATION", "CELL.NAME", "CELL.CHANNELS", "CELL.KERNEL_SIZE", "CELL.NORM",
    "SOLVER.NAME", "SOLVER.TOL", "SOLVER.MAX_STEPS", "NEUMANN.TERMS", "NEUMANN.TOL", "PENALTY.WEIGHT", "PENALTY.BOUND",
    "PENALTY.REDUCTION", "EARLY_STOP.ENABLED", "EARLY_STOP.TOL",
)  # fmt: skip
RULES = (
    "bptt",
    "tbptt",
    "bptt_every_step",
    "cbptt",
    "rbp",
    "crbp",
    "deq",
    "progressive",
    "progressive_mixed",
    "crbp_random",
)


@pytest.mark.parametrize("module,name", [(module, name) for module, names in NAMES.items() for name in names])
def test_name_is_there_and_explained(module, name):
    found = getattr(importlib.import_module(module), name)
    assert inspect.getdoc(found)


@pytest.mark.parametrize("module", [*NAMES, "crbp_d2.layers", "crbp_d2.engine"])
def test_all_of_a_module_can_be_imported(module):
    found = importlib.import_module(module)
    assert all(hasattr(found, name) for name in getattr(found, "__all__", ()))


@pytest.mark.parametrize("key", KEYS)
def test_config_key(key):
    cfg = get_cfg()
    add_crbp_config(cfg)
    value = cfg.MODEL.RECURRENCE
    for part in key.split("."):
        assert part in value
        value = value[part]


@pytest.mark.parametrize("rule", RULES)
def test_rule_by_its_name(rule):
    assert isinstance(learning_rule(rule, HGRUCell(4, 3), steps=6), Recurrence)


def test_the_five_arguments_and_the_rule_are_the_same_thing():
    torch.manual_seed(0)
    cell = HGRUCell(channels=5, kernel_size=3, norm="BN")
    parts = Recurrence(
        cell,
        solver=FixedSteps(6),
        gradient=Implicit(NeumannSeries(num_terms=4)),
        penalty=LipschitzPenalty(bound=0.9),
        supervision="last",
    )
    named = learning_rule("crbp", cell, steps=6, num_terms=4)
    drive = torch.randn(2, 5, 7, 7)
    results = []
    for recurrence in (parts, named):
        cell.zero_grad()
        out = recurrence(drive)
        (out.state[0].square().sum() + out.penalty).backward()
        results.append((out.state[0], out.penalty, *(p.grad.clone() for p in cell.parameters())))
        assert out.stats.steps == 6 and len(out.stats.residual) == len(out.stats.converged) == 2
        assert out.states is None
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_a_run_past_the_trained_steps_records_every_state():
    cell = HGRUCell(5, 3)
    drive = torch.randn(2, 5, 7, 7)
    out = learning_rule("crbp", cell, steps=3)(drive, steps=8, record=True)
    state = cell.initial_state(drive)
    for recorded in out.states:
        state = cell(drive, state)
        torch.testing.assert_close(recorded, state)
    assert len(out.states) == 8


def test_a_series_of_k_terms_sums_one_more():
    torch.manual_seed(0)
    jacobian, g = 0.1 * torch.randn(4, 4, dtype=torch.float64), torch.randn(1, 4, dtype=torch.float64)

    def sum_of(terms):
        class Linear(torch.nn.Module):
            def initial_state(self, drive):
                return (torch.zeros_like(drive),)

            def forward(self, drive, state):
                return (state[0] @ jacobian.T + drive,)

        drive = torch.ones(1, 4, dtype=torch.float64, requires_grad=True)
        recurrence = Recurrence(Linear(), FixedSteps(3), Implicit(NeumannSeries(num_terms=terms)))
        (recurrence(drive).state[0] * g).sum().backward()
        return drive.grad

    for terms in (0, 1, 5):
        expected = sum(g @ torch.matrix_power(jacobian, k) for k in range(terms + 1))
        torch.testing.assert_close(sum_of(terms), expected)


def test_random_steps_take_low_and_high():
    assert list(inspect.signature(RandomSteps).parameters)[:2] == ["low", "high"]
