"""A setting has one default: in YAML, in a LazyConfig and as a keyword."""

import inspect

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import get_cfg, instantiate
from detectron2.layers import ShapeSpec

from crbp_d2 import add_crbp_config
from crbp_d2.cells import CELLS, FeedforwardControl, GalaHGRUCell, HGRUCell
from crbp_d2.config_file import value_of
from crbp_d2.layers.convolution import HorizontalConv2d
from crbp_d2.modeling import ContourSegHead, ContourStem, FeedforwardContourHead, RecurrentMaskHead, RecurrentSemSegHead
from crbp_d2.modeling.build import ARGUMENTS, build_recurrence
from crbp_d2.modeling.contour_head import ContourReadout
from crbp_d2.recurrence import (
    PENALTIES,
    RULES,
    SOLVERS,
    Anderson,
    Broyden,
    ContractionPenalty,
    EarlyExit,
    FixedSteps,
    Implicit,
    LipschitzPenalty,
    Mixed,
    NeumannSeries,
    Phantom,
    Recurrence,
    Truncated,
    learning_rule,
)

HEADS = (RecurrentMaskHead, RecurrentSemSegHead, ContourSegHead)
# Key -> the constructors' arguments it sets.
SAME = {
    "MODEL.RECURRENCE.TRUNCATION": [(Truncated, "truncation"), (Phantom, "truncation")],
    "MODEL.RECURRENCE.PHANTOM_DAMPING": [(Phantom, "damping")],
    "MODEL.RECURRENCE.FIXED_WEIGHT": [(Mixed, "fixed_weight")],
    "MODEL.RECURRENCE.SOLVER.TOL": [(Anderson, "tol"), (Broyden, "tol")],
    "MODEL.RECURRENCE.SOLVER.DAMPING": [(Anderson, "damping")],
    "MODEL.RECURRENCE.NEUMANN.TERMS": [(NeumannSeries, "num_terms")],
    "MODEL.RECURRENCE.NEUMANN.TOL": [(NeumannSeries, "tol")],
    "MODEL.RECURRENCE.PENALTY.BOUND": [(LipschitzPenalty, "bound"), (ContractionPenalty, "bound")],
    "MODEL.RECURRENCE.PENALTY.REDUCTION": [(LipschitzPenalty, "reduction"), (ContractionPenalty, "reduction")],
    "MODEL.RECURRENCE.PENALTY.POWER_ITERATIONS": [(ContractionPenalty, "iterations")],
    "MODEL.RECURRENCE.EARLY_STOP.TOL": [(EarlyExit, "tol")],
    "MODEL.RECURRENCE.CELL.START": [(cell, "start") for cell in CELLS.values()],
    "MODEL.RECURRENCE.CELL.FORM": [(HGRUCell, "form")],
    "MODEL.RECURRENCE.CELL.CONVOLUTION": [(HorizontalConv2d, "method")],
    "MODEL.RECURRENCE.READOUT_NORM": [(head, "readout_norm") for head in (*HEADS, ContourReadout)],
    "MODEL.RECURRENCE.PENALTY.WEIGHT": [(head, "penalty_weight") for head in HEADS],
    "MODEL.CONTOUR.CHANNELS": [(ContourStem, "channels")],
    "MODEL.CONTOUR.STEM_KERNEL_SIZE": [(ContourStem, "kernel_size")],
    "MODEL.CONTOUR.NUM_LAYERS": [(FeedforwardControl, "num_layers")],
    "MODEL.CONTOUR.FOCAL_GAMMA": [(ContourReadout, "focal_gamma")],
    "MODEL.CONTOUR.PRIOR_PROB": [(ContourReadout, "prior_prob")],
    # 0: the number of steps.
    "MODEL.RECURRENCE.STEPS": [(Anderson, "max_steps"), (Broyden, "max_steps")]
    + [(cell, "timescale") for cell in CELLS.values()],
}
# No constructor has a default for these, or theirs is taken: 0, "", no early exit.
GIVEN = {
    "MODEL.RECURRENCE.RULE": "crbp",
    "MODEL.RECURRENCE.SOLVER.NAME": "",
    "MODEL.RECURRENCE.SOLVER.MAX_STEPS": 0,
    "MODEL.RECURRENCE.SOLVER.MEMORY": 0,
    "MODEL.RECURRENCE.PENALTY.NAME": "Lipschitz",
    "MODEL.RECURRENCE.CELL.NAME": "GalaHGRUCell",
    "MODEL.RECURRENCE.CELL.CHANNELS": 0,
    "MODEL.RECURRENCE.CELL.KERNEL_SIZE": 0,
    "MODEL.RECURRENCE.CELL.NORM": "",
    "MODEL.RECURRENCE.CELL.TIMESCALE": 0,
    "MODEL.RECURRENCE.TEST_STEPS": 0,
}


def config(*options):
    cfg = get_cfg()
    add_crbp_config(cfg)
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", *options])
    return cfg


def default(owner, argument):
    """The default of a constructor, which may be that of a base class."""
    parameters = (inspect.signature(part).parameters for part in owner.__mro__ if part is not object)
    return next(found[argument].default for found in parameters if argument in found)


def leaves(node, prefix):
    for key, value in node.items():
        if hasattr(value, "items"):
            yield from leaves(value, f"{prefix}.{key}")
        else:
            yield f"{prefix}.{key}"


def test_every_key_is_compared():
    cfg = config()
    keys = {*leaves(cfg.MODEL.RECURRENCE, "MODEL.RECURRENCE"), *leaves(cfg.MODEL.CONTOUR, "MODEL.CONTOUR")}
    decided_by_build = {"MODEL.RECURRENCE.EARLY_STOP.ENABLED", "MODEL.RECURRENCE.CELL.COMPILE"}
    assert keys - decided_by_build == set(ARGUMENTS) == {*SAME, *GIVEN}


@pytest.mark.parametrize("key", SAME)
def test_yaml_and_constructors_have_one_default(key):
    value = value_of(config(), key)
    for owner, argument in SAME[key]:
        assert default(owner, argument) == value and type(default(owner, argument)) is type(value), owner


@pytest.mark.parametrize("key", ARGUMENTS)
def test_yaml_and_learning_rule_have_one_default(key):
    value, argument = value_of(config(), key), ARGUMENTS[key]
    assert key not in GIVEN or GIVEN[key] == value
    for function in (part for table in (RULES, SOLVERS, PENALTIES) for part in table.values()):
        parameter = inspect.signature(function).parameters.get(argument)
        if parameter is not None and argument not in ("cell", "steps", "solver", "penalty"):
            assert parameter.default == value and type(parameter.default) is type(value), function


def described(model):
    """Structure and numbers; the parameters are random."""
    shapes = [(name, tuple(p.shape)) for name, p in model.named_parameters()]
    numbers = {name: value for name, value in vars(model).items() if isinstance(value, int | float | str)}
    return repr(model), shapes, numbers


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", CELLS)
def test_the_same_recurrence_three_ways(name, rule):
    by_yaml = build_recurrence(config("MODEL.RECURRENCE.CELL.NAME", name, "MODEL.RECURRENCE.RULE", rule), 8)
    lazy = instantiate(L(learning_rule)(name=rule, cell=L(CELLS[name])(channels=8), steps=20))
    by_keyword = learning_rule(rule, CELLS[name](8), steps=20)
    assert described(by_yaml) == described(lazy) == described(by_keyword)


def test_the_paper_s_recurrence_of_parts():
    parts = L(Recurrence)(
        cell=L(GalaHGRUCell)(channels=8),
        solver=L(FixedSteps)(steps=20),
        gradient=L(Implicit)(transpose=L(NeumannSeries)()),
        penalty=L(LipschitzPenalty)(),
    )
    assert described(instantiate(parts)) == described(build_recurrence(config(), 8))
    assert described(learning_rule("crbp", GalaHGRUCell(8), steps=20)) == described(instantiate(parts))


def test_the_same_mask_head_three_ways():
    shape = ShapeSpec(channels=8, height=14, width=14)
    cfg = config("MODEL.ROI_MASK_HEAD.CONV_DIM", 8)
    lazy = L(RecurrentMaskHead)(
        input_shape=shape,
        recurrence=L(learning_rule)(name="crbp", cell=L(GalaHGRUCell)(channels=8), steps=20),
        num_classes=80,
        conv_dim=8,
    )
    by_keyword = RecurrentMaskHead(
        shape, recurrence=learning_rule("crbp", GalaHGRUCell(8), steps=20), num_classes=80, conv_dim=8
    )
    assert described(RecurrentMaskHead(cfg, shape)) == described(instantiate(lazy)) == described(by_keyword)


def test_the_same_contour_network_three_ways():
    cfg = config(
        "MODEL.SEM_SEG_HEAD.NAME", "ContourSegHead", "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 2,
        "MODEL.SEM_SEG_HEAD.IN_FEATURES", ["stem"], "MODEL.RECURRENCE.CELL.NAME", "HGRUCell",
    )  # fmt: skip
    stem = ContourStem()
    assert (
        described(ContourStem(cfg, ShapeSpec(channels=1)))
        == described(instantiate(L(ContourStem)()))
        == described(stem)
    )
    torch.testing.assert_close(ContourStem(cfg, ShapeSpec(channels=1)).conv.weight, stem.conv.weight)
    shape = stem.output_shape()
    lazy = L(ContourSegHead)(
        input_shape=shape, recurrence=L(learning_rule)(name="crbp", cell=L(HGRUCell)(channels=25), steps=20)
    )
    by_keyword = ContourSegHead(shape, recurrence=learning_rule("crbp", HGRUCell(25), steps=20))
    by_yaml = ContourSegHead(cfg, shape)
    assert described(by_yaml) == described(instantiate(lazy)) == described(by_keyword)
    torch.testing.assert_close(by_yaml.predictor.bias, by_keyword.predictor.bias)
    control = FeedforwardContourHead(layers=FeedforwardControl(25))
    assert described(FeedforwardContourHead(cfg, shape)) == described(control)
