"""Invalid settings: what every constructor rejects, and how an error tells it."""

import math
import pickle
from functools import partial

import numpy as np
import pytest
from detectron2.layers import ShapeSpec

from crbp_d2.cells import CELLS, FeedforwardControl
from crbp_d2.modeling import ContourSegHead, ContourStem, RecurrentMaskHead, RecurrentSemSegHead
from crbp_d2.recurrence import (
    Anderson,
    Broyden,
    ContractionPenalty,
    EarlyExit,
    FixedSteps,
    LipschitzPenalty,
    NeumannSeries,
    Phantom,
    RandomSteps,
    Truncated,
    learning_rule,
)
from crbp_d2.utils.errors import ContradictionError, SettingError, check_choice, check_number, check_odd, check_whole

MASK = {"input_shape": ShapeSpec(channels=4), "num_classes": 2}
STEM = {"input_shape": {"stem": ShapeSpec(channels=4)}}
LEVELS = {"input_shape": {"p2": ShapeSpec(channels=4, stride=4)}, "num_classes": 2, "ignore_value": 255, "norm": ""}


def recurrence():
    return learning_rule("crbp", CELLS["HGRUCell"](4, 3), steps=3)


WHOLE = {
    FixedSteps: ["steps"],
    partial(RandomSteps, low=2, high=4): ["low", "high"],
    Truncated: ["truncation"],
    Phantom: ["truncation"],
    NeumannSeries: ["num_terms"],
    Anderson: ["memory", "max_steps"],
    Broyden: ["memory", "max_steps"],
    ContractionPenalty: ["iterations"],
    **{partial(cell, channels=4): ["channels", "kernel_size", "timescale"] for cell in CELLS.values()},
    partial(FeedforwardControl, channels=4): ["channels", "kernel_size", "num_layers"],
    ContourStem: ["channels", "kernel_size"],
    partial(learning_rule, "crbp", CELLS["HGRUCell"](4, 3), steps=3): [
        "steps", "num_terms",
    ],
    lambda **given: RecurrentMaskHead(recurrence=recurrence(), **{**MASK, **given}): [
        "num_classes", "conv_dim",
    ],
}  # fmt: skip
NUMBERS = {
    partial(FixedSteps, 3): ["tol"],
    partial(RandomSteps, 2, 4): ["tol"],
    partial(Phantom, 3): ["damping"],
    NeumannSeries: ["tol", "growth_limit"],
    Anderson: ["tol", "damping"],
    Broyden: ["tol"],
    LipschitzPenalty: ["bound"],
    ContractionPenalty: ["bound"],
    partial(EarlyExit, FixedSteps(3)): ["tol"],
    partial(learning_rule, "crbp", CELLS["HGRUCell"](4, 3), steps=3): [
        "bound",
    ],
    lambda **given: RecurrentMaskHead(recurrence=recurrence(), **MASK, **given): ["penalty_weight"],
    lambda **given: RecurrentSemSegHead(recurrence=recurrence(), **LEVELS, **given): ["penalty_weight"],
    lambda **given: ContourSegHead(recurrence=recurrence(), **STEM, **given): [
        "penalty_weight", "focal_gamma", "prior_prob", "loss_weight",
    ],
}  # fmt: skip


@pytest.mark.parametrize("make,name", [(make, name) for make, names in WHOLE.items() for name in names])
def test_what_counts_is_a_whole_number(make, name):
    for value in (2.5, 3.0, -1, True, "3", math.nan, math.inf):
        with pytest.raises(SettingError) as caught:
            make(**{name: value})
        assert caught.value.name == name and caught.value.value is value
        assert "numbers from" in caught.value.allowed and repr(value) in str(caught.value)


@pytest.mark.parametrize("make,name", [(make, name) for make, names in NUMBERS.items() for name in names])
def test_what_measures_is_a_number_of_its_interval(make, name):
    for value in (-0.5, True, "0.5", math.nan, math.inf):
        with pytest.raises(SettingError) as caught:
            make(**{name: value})
        assert caught.value.name == name and caught.value.value is value
        assert "numbers in" in caught.value.allowed and repr(value) in str(caught.value)


def test_test_steps_are_a_number_or_none():
    for value in (0, 2.5, True, "3"):
        for make in (
            lambda **given: RecurrentMaskHead(recurrence=recurrence(), **MASK, **given),
            lambda **given: ContourSegHead(recurrence=recurrence(), **STEM, **given),
        ):
            with pytest.raises(SettingError, match=f"test_steps is {value!r}"):
                make(test_steps=value)


def test_ends_of_intervals_and_numbers_of_numpy():
    check_whole("X", a=np.int64(1), b=7)
    check_odd("X", a=np.int32(3))
    check_number("X", "[0, 1)", a=0, b=np.float32(0.5))
    check_number("X", "(0, 1]", a=1, b=1e-300)
    for interval, value in (("(0, 1]", 0), ("[0, 1)", 1), ("(1, inf)", 1), ("[0, inf)", math.inf)):
        with pytest.raises(SettingError, match="a is"):
            check_number("X", interval, a=value)


def test_a_misspelt_choice_is_told_with_the_nearest():
    with pytest.raises(SettingError, match="X: norm is 'NB'; allowed: '', BN, GN$"):
        check_choice("X", ("", "BN", "GN"), norm="NB")
    with pytest.raises(SettingError, match="did you mean 'direct'"):
        check_choice("X", ("auto", "direct"), method="dirct")
    for value in (1, None, ("auto",)):
        with pytest.raises(SettingError, match="method is"):
            check_choice("X", ("auto", "direct"), method=value)


@pytest.mark.parametrize(
    "error",
    [
        SettingError("steps", 0, "whole numbers from 1", "FixedSteps"),
        SettingError("rule", "crpb", ("crbp", "rbp")),
        ContradictionError({"tol": 2, "norm": "BatchNorm2d"}, "no", "EarlyExit"),
    ],
)
def test_errors_are_value_errors_that_other_processes_can_raise(error):
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, ValueError) and type(again) is type(error) and str(again) == str(error)
    assert (again.name, again.value, again.allowed, again.owner) == (
        error.name,
        error.value,
        error.allowed,
        error.owner,
    )


def test_learning_rule_raises_the_errors_of_its_parts():
    cell = CELLS["HGRUCell"](4, 3)
    with pytest.raises(ContradictionError) as caught:
        learning_rule("deq", cell, steps=3, early_stop=0.1)
    assert list(caught.value.settings) == ["tol", "solver"] and caught.value.owner == "EarlyExit"
    with pytest.raises(SettingError) as invalid:
        learning_rule("crbp", cell, steps=3, neumann_tol=2)
    assert (invalid.value.owner, invalid.value.name, invalid.value.value) == ("NeumannSeries", "tol", 2)


def test_learning_rule_rejects_what_the_rule_cannot_use():
    cell = CELLS["HGRUCell"](4, 3)
    for rule in ("bptt", "tbptt", "rbp", "deq", "phantom", "progressive"):
        with pytest.raises(ContradictionError, match=f"penalty is 'Lipschitz', but rule is '{rule}'"):
            learning_rule(rule, cell, steps=3, penalty="Lipschitz")
    with pytest.raises(TypeError, match="unknown setting 'terms'"):
        learning_rule("crbp", cell, steps=3, terms=3)
