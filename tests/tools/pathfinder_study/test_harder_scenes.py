"""The panoptic models on the harder scenes: runs that are kept, what they cost, and the table that is made of them."""

import json
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.engine import default_argument_parser
from helpers.paths import ROOT

from crbp_d2.data import register_toy_panoptic
from crbp_d2.engine import setup
from crbp_d2.evaluation.per_step.report import HEADINGS, steps_csv
from crbp_d2.modeling import check_recurrence_config
from tools.benchmarks.live_memory import live_peak
from tools.data_sets import free
from tools.pathfinder_study import harder_scenes, panoptic_costs, panoptic_results, panoptic_runs
from tools.pathfinder_study.harder_scenes import (
    COSTS,
    PICTURES,
    RULES,
    RuleCost,
    draw_harder_steps,
    harder_section,
    harder_table,
    kept,
    load_costs,
    load_harder_runs,
)

COST = RuleCost(2_000_000, 3 * 2**20)


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_has_its_config(rule, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    cfg = setup(default_argument_parser().parse_args(panoptic_runs.command(rule, 2, tmp_path)[2:]))
    check_recurrence_config(cfg)
    assert cfg.DATASETS.TEST == (panoptic_runs.TEST_SET,) and cfg.SEED == 2
    assert len(cfg.TEST.STEPS_TO_EVALUATE) == (0 if rule == "baseline" else 30)
    assert harder_scenes.steps_of(rule, ROOT) == (None if rule == "baseline" else cfg.MODEL.RECURRENCE.STEPS)


@pytest.fixture
def runs(monkeypatch, tmp_path):
    """Names of the runs that were started, in a repository that is empty."""
    ran = []

    def run(command, cwd):
        output = Path(command[command.index("OUTPUT_DIR") + 1]) / "inference" / panoptic_runs.TEST_SET
        ran.append(output.parents[1].name)
        (output / "pictures").mkdir(parents=True)
        (output / "results.json").write_text('{"panoptic_seg": {"PQ": 1.0, "PQ_th": 2.0, "PQ_st": 3.0}}')
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(panoptic_runs, "ROOT", tmp_path)
    monkeypatch.setattr(panoptic_runs.subprocess, "run", run)
    monkeypatch.setattr(panoptic_costs, "measure_cost", lambda config: ran.append(Path(config).stem) or COST)
    # Which asks the system by subprocess.run itself.
    for module in (panoptic_costs, panoptic_results):
        monkeypatch.setattr(module, "machine", lambda: "a machine")
    return ran


def test_what_was_run_is_kept_and_not_run_again(runs, tmp_path):
    panoptic_runs.main(["--only", "crbp", "--seeds", "0"])
    panoptic_runs.main(["--only", "crbp", "baseline", "--seeds", "0"])
    assert runs == ["crbp_s0", "panoptic_R18_crbp_hard", "baseline_s0", "panoptic_R18_baseline_hard"]
    assert kept("baseline", 0, tmp_path).joinpath("results.json").exists()
    assert load_costs(tmp_path) == {"crbp": COST, "baseline": COST}
    (tmp_path / COSTS).write_text('{"costs": {"crbp": {"parameters": 1}}}')
    with pytest.raises(ValueError, match="costs.json holds no costs .*delete it"):
        load_costs(tmp_path)


def test_pictures_of_the_two_models_are_put_side_by_side(runs, tmp_path):
    panoptic_runs.main(["--only", "baseline", "contracting", "--seeds", "1"])
    for rule in ("baseline", "contracting"):
        pictures = panoptic_runs.output_of(rule, 1) / "inference" / panoptic_runs.TEST_SET / "pictures"
        cv2.imwrite(str(pictures / "a.png"), np.zeros((94, 240, 3), np.uint8))
    panoptic_runs.main(["--pictures", "1"])
    assert [path.name for path in (tmp_path / PICTURES).iterdir()] == ["a.jpg"]
    with pytest.raises(SystemExit, match="baseline, seed 2, was not run on this machine"):
        panoptic_runs.main(["--pictures", "2"])


def keep(root, rule, seed, things, steps=None):
    """A run whose PQ after t steps is steps(t)."""
    folder = kept(rule, seed, root)
    folder.mkdir(parents=True)
    figures = {"PQ": things + 20, "PQ_th": things, "PQ_st": 90}
    (folder / "results.json").write_text(json.dumps({"panoptic_seg": figures, "machine": "a machine"}))
    if steps:
        t = np.arange(1, 31)
        columns = {name: steps(t) for name in HEADINGS} | {"t": t}
        (folder / "quality_per_step.csv").write_text(steps_csv(columns))


@pytest.fixture
def study(tmp_path):
    """A repository with runs of three of the five rules; recurrence gains 10 on a spread of 4, or 3 on one of 4."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    for seed, things in enumerate((38.0, 40.0, 42.0)):
        keep(tmp_path, "baseline", seed, things)
        keep(tmp_path, "progressive", seed, things + 10, lambda t, things=things: things + 30 - 0.1 * t)
        keep(tmp_path, "crbp", seed, things + 3, lambda t, things=things: things + 30 - 2.0 * t)
    (tmp_path / COSTS).write_text(json.dumps({"costs": {"crbp": {"parameters": 2_000_000, "peak": 3 * 2**20}}}))
    return tmp_path


def test_the_table_has_means_and_ranges_of_the_seeds(study):
    headers, rows = harder_table(load_harder_runs(study), study)
    table = {row[0]: dict(zip(headers, row, strict=True)) for row in rows}
    assert len(table) == len(RULES)
    assert table["feedforward"]["PQ things at N"] == "40.0 (38.0 to 42.0)"
    assert table["feedforward"]["N"] == table["feedforward"]["PQ at t = 10"] == "-"
    crbp = table["C-RBP"]
    assert crbp["seeds"] == "3" and crbp["N"] == "10" and crbp["PQ at N"] == "63.0 (61.0 to 65.0)"
    assert crbp["parameters, M"] == "2.00" and crbp["memory, MiB"] == "3"
    assert crbp["PQ at t = 30"] == "10.0 (8.0 to 12.0)"
    assert table["BPTT"]["seeds"] == table["BPTT"]["PQ at N"] == "-"


def test_the_section_says_whether_the_gain_is_more_than_the_spread(study):
    text = "\n".join(harder_section(study, "[figure](a.png)"))
    assert "C-RBP +3.0, not more than the seeds' spread of 4.0" in text
    assert "progressive +10.0, more than the seeds' spread of 4.0" in text
    assert "to 30 steps: C-RBP 53.0, progressive 3.0. With at most 0.5 lost, and at N no less than C-RBP: none." in text
    assert "on a machine." in text and text.endswith("[figure](a.png).")


def test_a_rule_that_is_flat_gets_its_command(study):
    keep(study, "contracting", 0, 45.0, lambda t: 65.0 - 0.01 * t)
    flat = "C-RBP, contracting, `tools/train_net.py --config-file configs/quick/panoptic_R18_contracting_hard.yaml`."
    assert f"no less than C-RBP: {flat}" in "\n".join(harder_section(study, ""))


def test_one_seed_has_no_spread(study):
    shutil.rmtree(kept("crbp", 1, study))
    shutil.rmtree(kept("crbp", 2, study))
    assert "C-RBP +1.0, one seed, which has no spread" in "\n".join(harder_section(study, ""))


def test_the_figure_has_every_step_of_every_rule(study, tmp_path):
    drawing = draw_harder_steps(study)
    assert len(drawing.rows) == 2 * 2 * 30  # figures, rules, steps
    assert ["C-RBP", "PQ", 30, 10, 8, 12] in drawing.rows
    drawing.save(tmp_path, "x")
    assert (tmp_path / "x.png").stat().st_size


def test_without_runs_there_is_a_command(tmp_path):
    assert harder_section(tmp_path, "") == ["Not run: `python -m tools.pathfinder_study.panoptic_runs`."]
    assert draw_harder_steps(tmp_path) is None


def test_the_peak_of_a_call_is_that_of_its_tensors():
    def call():
        x = torch.zeros(1000)
        y = torch.zeros(3000)
        del x
        return y + 1

    # x and y, then y and the sum of it and a number.
    assert 4 * 6000 <= live_peak(call) <= 4 * 6000 + 64


@pytest.fixture
def small_scenes(tmp_path):
    names = ("toy_panoptic_train", "toy_panoptic_val")
    free(*names)
    register_toy_panoptic(str(tmp_path / "datasets"), num_train=5, num_val=1, size=64)
    yield
    free(*names)


@pytest.mark.usefixtures("small_scenes")
def test_unrolled_steps_cost_memory_and_no_parameters():
    config = str(ROOT / "configs/quick/panoptic_R18_crbp_toy.yaml")
    small = ("SOLVER.IMS_PER_BATCH", "2", "DATALOADER.NUM_WORKERS", "0")
    options = (*small, "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION", "32", "MODEL.RECURRENCE.STEPS")
    costs = {
        (rule, steps): panoptic_costs.measure_cost(config, *options, str(steps), "MODEL.RECURRENCE.RULE", rule)
        for rule, steps in (("bptt", 2), ("bptt", 32), ("crbp", 2), ("crbp", 32))
    }
    assert len({cost.parameters for cost in costs.values()}) == 1
    growth = {rule: costs[rule, 32].peak - costs[rule, 2].peak for rule in ("bptt", "crbp")}
    assert growth["bptt"] > 0.5 * costs["bptt", 2].peak
    # The gradient of a convolution of the backbone more or less may be alive at the peak, 6% of BPTT's growth.
    assert abs(growth["crbp"]) < 0.2 * growth["bptt"]
