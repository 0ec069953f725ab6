"""Config keys: what is refused, and what the shipped YAMLs say."""

import pytest
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from helpers.paths import ROOT

from crbp_d2 import add_crbp_config
from crbp_d2.engine.setup import check
from crbp_d2.layers.convolution import HorizontalConv2d
from crbp_d2.modeling import check_recurrence_config
from crbp_d2.modeling.build import build_feedforward, build_recurrence
from crbp_d2.recurrence import SOLVERS, Anderson, EarlyExit


def config(*options, file=None):
    cfg = get_cfg()
    add_crbp_config(cfg)
    if file:
        cfg.merge_from_file(str(ROOT / "configs" / file))
    cfg.merge_from_list(list(options))
    return cfg


# Keys, or their sections -> options under which they have an effect.
USED_BY = {
    "TRUNCATION": ["RULE", "tbptt"],
    "SOLVER": ["SOLVER.NAME", "Anderson"],
    "PENALTY.POWER_ITERATIONS": ["PENALTY.NAME", "Contraction"],
    "EARLY_STOP": ["EARLY_STOP.ENABLED", True],
}


@pytest.mark.parametrize(
    "key,value,allowed",
    [
        ("RULE", "crpb", "bptt"),
        ("STEPS", 0, "from 1"),
        ("TEST_STEPS", -1, "from 1"),
        ("READOUT_NORM", "IN", "SyncBN"),
        ("CELL.NAME", "LSTM", "GalaHGRUCell"),
        ("CELL.CHANNELS", -4, "from 1"),
        ("CELL.KERNEL_SIZE", 4, "odd"),
        ("CELL.NORM", "IN", "GN"),
        ("CELL.CONVOLUTION", "gemm", "auto, direct, fft"),
        ("TRUNCATION", 0, "from 1"),
        ("SOLVER.NAME", "Newton", "Anderson, Broyden"),
        ("SOLVER.TOL", 0.0, r"\(0, 1\)"),
        ("SOLVER.MAX_STEPS", -1, "from 1"),
        ("SOLVER.MEMORY", -1, "from 1"),
        ("SOLVER.DAMPING", 0.0, r"\(0, 1\]"),
        ("NEUMANN.TERMS", -1, "from 0"),
        ("NEUMANN.TOL", 1.0, r"\[0, 1\)"),
        ("CELL.TIMESCALE", -1, "from 1"),
        ("CELL.START", "one", "zero, drive"),
        ("PENALTY.NAME", "Ridge", "Contraction, Lipschitz"),
        ("PENALTY.POWER_ITERATIONS", -1, "from 0"),
        ("PENALTY.BOUND", 1.0, r"\[0, 1\)"),
        ("PENALTY.BOUND", float("nan"), r"\[0, 1\)"),
        ("PENALTY.WEIGHT", -1.0, r"\[0, inf\)"),
        ("PENALTY.WEIGHT", float("inf"), r"\[0, inf\)"),
        ("PENALTY.REDUCTION", "max", "sum"),
        ("EARLY_STOP.TOL", 0.0, r"\(0, 1\)"),
        ("EARLY_STOP.TOL", float("nan"), r"\(0, 1\)"),
    ],
)
def test_refusals_name_key_value_and_what_is_allowed(key, value, allowed):
    section = key.partition(".")[0]
    given = [
        f"MODEL.RECURRENCE.{part}" if k % 2 == 0 else part
        for k, part in enumerate(USED_BY.get(key, USED_BY.get(section, [])))
    ]
    with pytest.raises(ValueError, match=rf"MODEL.RECURRENCE.{key} is .*{value}.*; allowed: .*{allowed}"):
        check_recurrence_config(config(*given, f"MODEL.RECURRENCE.{key}", value))


def test_contradictions_are_refused():
    with pytest.raises(ValueError, match="PENALTY.WEIGHT is 0.*RULE is 'crbp'"):
        check_recurrence_config(config("MODEL.RECURRENCE.PENALTY.WEIGHT", 0.0))
    check_recurrence_config(config("MODEL.RECURRENCE.PENALTY.WEIGHT", 0.0, "MODEL.RECURRENCE.RULE", "rbp"))
    norm = "MODEL.ROI_MASK_HEAD.NORM", "LN", "MODEL.ROI_MASK_HEAD.NAME"
    with pytest.raises(ValueError, match="MODEL.ROI_MASK_HEAD.NORM is 'LN'"):
        check_recurrence_config(config(*norm, "RecurrentMaskHead"))
    # Of detectron2's own head it is a setting like any other.
    check_recurrence_config(config(*norm, "MaskRCNNConvUpsampleHead"))


def test_a_penalty_that_the_rule_ignores_is_refused():
    keys = {name: f"MODEL.RECURRENCE.PENALTY.{name}" for name in ("NAME", "WEIGHT")}
    for rule in ("rbp", "bptt"):
        for name, value in (("NAME", "Contraction"), ("WEIGHT", 5.0)):
            cfg = config("MODEL.RECURRENCE.RULE", rule, keys[name], value)
            with pytest.raises(ValueError, match=rf"{keys[name]} is {value!r}, but .*RULE is '{rule}'"):
                check_recurrence_config(cfg, given=[keys[name], "SEED"])
    # Of the base of another rule's config.
    check_recurrence_config(cfg, given=["MODEL.RECURRENCE.RULE"])
    check_recurrence_config(config(keys["WEIGHT"], 5.0), given=keys.values())


def test_a_config_without_our_keys_is_told_which_call_it_lacks():
    cfg = get_cfg()
    cfg.MODEL.DEVICE, cfg.MODEL.MASK_ON = "cpu", True
    cfg.MODEL.ROI_MASK_HEAD.NAME = "RecurrentMaskHead"
    with pytest.raises(ValueError, match="add_crbp_config"):
        build_model(cfg)
    with pytest.raises(ValueError, match="add_crbp_config"):
        check(cfg)


@pytest.mark.parametrize(
    "options,expected",
    [
        (["RULE", "bptt", "SOLVER.NAME", "Anderson"], r"SOLVER.NAME is 'Anderson', but .*RULE is 'bptt': Unrolled\(\)"),
        (["RULE", "tbptt", "STEPS", 2], "MODEL.RECURRENCE.TRUNCATION is 3, but MODEL.RECURRENCE.STEPS is 2"),
        (
            ["SOLVER.MAX_STEPS", 30],
            r"SOLVER.MAX_STEPS is 30, but .*SOLVER.NAME is '' and .*RULE is 'crbp': FixedSteps\(20\)",
        ),
        (
            ["EARLY_STOP.ENABLED", True, "CELL.NORM", "BN"],
            "MODEL.RECURRENCE.EARLY_STOP.ENABLED is True, but MODEL.RECURRENCE.CELL.NORM is 'BN': BatchNorm2d",
        ),
        (
            ["EARLY_STOP.ENABLED", True, "RULE", "deq"],
            "EARLY_STOP.ENABLED is True, but .*SOLVER.NAME is '' and .*RULE is 'deq': Anderson",
        ),
        (
            ["EARLY_STOP.ENABLED", True, "SOLVER.NAME", "Broyden"],
            "EARLY_STOP.ENABLED is True, but .*SOLVER.NAME is 'Broyden' and .*RULE is 'crbp'",
        ),
        (
            ["RULE", "rbp", "PENALTY.NAME", "Contraction"],
            "PENALTY.NAME is 'Contraction', but MODEL.RECURRENCE.RULE is 'rbp'",
        ),
        (["CELL.FORM", "released"], "CELL.FORM is 'released', but MODEL.RECURRENCE.CELL.NAME is 'GalaHGRUCell'"),
        (["CELL.NAME", "HGRUCell", "CELL.FORM", "other"], "CELL.FORM is 'other'; allowed: printed, released"),
        (["CELL.CHANNELS", 30], "CELL.CHANNELS is 30; allowed: multiples of 4"),
    ],
)
def test_parts_that_do_not_go_together_are_refused(options, expected):
    keys = [f"MODEL.RECURRENCE.{option}" if k % 2 == 0 else option for k, option in enumerate(options)]
    with pytest.raises(ValueError, match=expected):
        check_recurrence_config(config(*keys))


def test_penalty_and_timescale_are_those_of_the_config():
    keys = ["PENALTY.NAME", "Contraction", "PENALTY.POWER_ITERATIONS", 5, "CELL.TIMESCALE", 2, "PENALTY.BOUND", 0.7]
    recurrence = build_recurrence(config(*(f"MODEL.RECURRENCE.{k}" if k in keys[::2] else k for k in keys)), 4)
    assert repr(recurrence.penalty) == "ContractionPenalty(bound=0.7, reduction='sum', iterations=5)"
    assert not recurrence.cell.update_gate.bias.any()
    assert build_recurrence(config(), 4).cell.update_gate.bias.any()


SETTLING = ["PENALTY.NAME", "Contraction"]


@pytest.mark.parametrize(
    "options,exits",
    [
        ([], False),
        (SETTLING, True),
        ([*SETTLING, "EARLY_STOP.ENABLED", False], False),
        ([*SETTLING, "RULE", "cbptt"], True),
        ([*SETTLING, "RULE", "crbp_random"], True),
        ([*SETTLING, "SOLVER.NAME", "Anderson"], False),
        ([*SETTLING, "CELL.NORM", "BN"], False),
        ([*SETTLING, "TEST.STEPS_TO_EVALUATE", (1, 2)], False),
        (["EARLY_STOP.ENABLED", True], True),
    ],
)
def test_early_exit_is_on_where_states_are_trained_to_settle(options, exits):
    keys = [
        f"MODEL.RECURRENCE.{option}" if k % 2 == 0 and not option.startswith("TEST") else option
        for k, option in enumerate(options)
    ]
    cfg = config(*keys)
    check_recurrence_config(cfg, given=())
    assert isinstance(build_recurrence(cfg, 4).solver, EarlyExit) == exits


def test_a_registered_solver_with_a_tolerance_has_no_early_exit(monkeypatch):
    monkeypatch.setitem(SOLVERS, "Own", lambda steps: Anderson(max_steps=steps))
    settling = ["MODEL.RECURRENCE.PENALTY.NAME", "Contraction"]
    assert isinstance(build_recurrence(config(*settling), 4).solver, EarlyExit)
    assert isinstance(build_recurrence(config(*settling, "MODEL.RECURRENCE.SOLVER.NAME", "Own"), 4).solver, Anderson)


def test_early_exit_is_on_off_or_left_to_the_rule():
    with pytest.raises(ValueError, match="ENABLED is 'yes'; allowed: True, False"):
        build_recurrence(config("MODEL.RECURRENCE.EARLY_STOP.ENABLED", "yes"), 4)


@pytest.mark.parametrize("build,count", [(build_recurrence, 4), (build_feedforward, 6)])
def test_the_method_of_the_convolutions_reaches_all_of_them(build, count):
    for cfg, method in ((config(), "auto"), (config("MODEL.RECURRENCE.CELL.CONVOLUTION", "fft"), "fft")):
        cfg.MODEL.RECURRENCE.CELL.NAME = "HGRUCell"
        methods = [part.method for part in build(cfg, 4).modules() if isinstance(part, HorizontalConv2d)]
        assert methods == [method] * count


def test_unknown_keys_are_refused_by_full_name():
    with pytest.raises((KeyError, AssertionError), match="MODEL.RECURRENCE.STEP"):
        config("MODEL.RECURRENCE.STEP", 3)


@pytest.mark.parametrize(
    "file,parameters",
    [
        ("panoptic_R50_crbp.yaml", 44_968_038),
        ("panoptic_R101_crbp_3x.yaml", 63_907_942),
        ("panoptic_R50_baseline.yaml", 45_751_590),
        ("panoptic_R101_baseline_3x.yaml", 64_691_494),
    ],
)
def test_trainable_parameters_are_those_of_the_paper(file, parameters):
    model = build_model(config("MODEL.DEVICE", "cpu", file=file))
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == parameters


# rule, steps, depth, iterations
PAPER = {
    "panoptic_R50_baseline": (None, None, 50, 90_000),
    "panoptic_R50_bptt_1step": ("bptt", 1, 50, 90_000),
    "panoptic_R50_bptt_2steps": ("bptt", 2, 50, 90_000),
    "panoptic_R50_bptt_3steps": ("bptt", 3, 50, 90_000),
    "panoptic_R50_bptt_5steps": ("bptt", 5, 50, 90_000),
    "panoptic_R50_rbp": ("rbp", 20, 50, 90_000),
    "panoptic_R50_crbp": ("crbp", 20, 50, 90_000),
    "panoptic_R50_crbp_5steps": ("crbp", 5, 50, 90_000),
    "panoptic_R50_crbp_10steps": ("crbp", 10, 50, 90_000),
    "panoptic_R101_baseline_3x": (None, None, 101, 270_000),
    "panoptic_R101_bptt_3steps_3x": ("bptt", 3, 101, 270_000),
    "panoptic_R101_crbp_3x": ("crbp", 20, 101, 270_000),
}


# Recipes that the paper does not have.
OWN = {"panoptic_R50_progressive"}


def test_every_experiment_of_the_paper_has_its_file_and_no_other():
    assert {path.stem for path in (ROOT / "configs").glob("*.yaml")} == set(PAPER) | OWN


def test_the_progressive_recipe_is_the_paper_s_but_for_its_rule():
    ours, paper = config(file="panoptic_R50_progressive.yaml"), config(file="panoptic_R50_crbp.yaml")
    assert (ours.MODEL.RECURRENCE.RULE, ours.MODEL.RECURRENCE.TRUNCATION) == ("progressive", 4)
    for cfg in (ours, paper):
        cfg.MODEL.RECURRENCE.RULE, cfg.MODEL.RECURRENCE.TRUNCATION, cfg.OUTPUT_DIR = "crbp", 3, ""
    assert ours == paper


@pytest.mark.parametrize("name", PAPER)
def test_files_say_what_the_paper_did(name):
    rule, steps, depth, iterations = PAPER[name]
    cfg = config(file=f"{name}.yaml")
    assert (depth, iterations, 16) == (cfg.MODEL.RESNETS.DEPTH, cfg.SOLVER.MAX_ITER, cfg.SOLVER.IMS_PER_BATCH)
    assert f"R-{depth}.pkl" in cfg.MODEL.WEIGHTS
    assert name in cfg.OUTPUT_DIR
    assert cfg.DATASETS.TRAIN == ("coco_2017_train_panoptic_separated",)
    if rule is None:
        assert cfg.MODEL.ROI_MASK_HEAD.NAME == "MaskRCNNConvUpsampleHead"
        return
    node = cfg.MODEL.RECURRENCE
    assert cfg.MODEL.ROI_MASK_HEAD.NAME == "RecurrentMaskHead"
    assert (rule, steps, 15, 0) == (node.RULE, node.STEPS, node.NEUMANN.TERMS, node.NEUMANN.TOL)
    assert (node.PENALTY.WEIGHT, node.PENALTY.REDUCTION, node.PENALTY.BOUND) == (0.001, "sum", 0.95)
    check_recurrence_config(cfg)
