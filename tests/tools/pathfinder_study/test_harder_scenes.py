"""The panoptic models on the harder scenes: runs, the paired comparison over seeds, and the table."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from detectron2.data import DatasetCatalog
from detectron2.engine import default_argument_parser
from helpers.paths import ROOT
from scipy import stats

from crbp_d2.data import register_builtin, register_toy_panoptic
from crbp_d2.engine import setup
from crbp_d2.evaluation.per_step.report import HEADINGS, steps_csv
from crbp_d2.modeling import check_recurrence_config
from tools.data_sets import free
from tools.pathfinder_study import harder_scenes, panoptic_results, panoptic_runs
from tools.pathfinder_study.claims import PanopticGain
from tools.pathfinder_study.harder_scenes import (
    PICTURES,
    PROTOCOLS,
    RULES,
    T_QUANTILE,
    draw_harder_steps,
    harder_section,
    harder_table,
    kept,
    load_panoptic,
    paired_gain,
)

NEW, OLD = PROTOCOLS


@pytest.mark.parametrize("rule", RULES)
def test_rules_have_configs_that_train_and_test(rule):
    for arguments, seeds in ((panoptic_runs.train_arguments, 0), (panoptic_runs.test_arguments, 30)):
        cfg = setup(default_argument_parser().parse_args(arguments(rule, 2)))
        check_recurrence_config(cfg)
        assert cfg.DATASETS.TEST == (panoptic_runs.TEST_SET,) and cfg.SEED == 2
        assert len(cfg.TEST.STEPS_TO_EVALUATE) == (0 if rule == "baseline" else seeds)
    assert harder_scenes.steps_of(rule, ROOT) == (None if rule == "baseline" else cfg.MODEL.RECURRENCE.STEPS)


def test_tested_scenes_are_400_of_their_own_seed(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    names = ("toy_panoptic_hard_train", panoptic_runs.TEST_SET)
    images = []

    def test(arguments=None):
        register_builtin()
        records = DatasetCatalog.get(panoptic_runs.TEST_SET)
        images.append([cv2.imread(record["file_name"]) for record in records])

    assert panoptic_runs.SCENES == 400
    monkeypatch.setattr(panoptic_runs, "SCENES", 2)
    monkeypatch.setattr(panoptic_runs, "train_or_test", test)
    free(*names)
    panoptic_runs.test_here("baseline", 0)
    free(*names)
    register_toy_panoptic(num_val=2, hard=True)
    test()
    free(*names)
    tested, usual = images
    assert len(tested) == len(usual) == 2 and not any(np.array_equal(*pair) for pair in zip(tested, usual, strict=True))


@pytest.fixture
def commands(monkeypatch, tmp_path):
    """The commands that were started, in an empty repository; training leaves weights, testing results."""
    ran = []

    def run(command, cwd, env):
        assert env["OMP_NUM_THREADS"] == "1"
        ran.append(command[1:])
        if "--test-here" in command:
            rule, seed = command[-2:]
            output = panoptic_runs.output_of(rule, int(seed)) / "inference" / panoptic_runs.TEST_SET
            (output / "pictures").mkdir(parents=True)
            cv2.imwrite(str(output / "pictures/a.png"), np.zeros((94, 240, 3), np.uint8))
            (output / "results.json").write_text('{"panoptic_seg": {"PQ": 1.0, "PQ_th": 2.0, "PQ_st": 3.0}}')
        else:
            output = Path(command[command.index("OUTPUT_DIR") + 1])
            output.mkdir(parents=True, exist_ok=True)
            (output / "model_final.pth").touch()
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(panoptic_runs, "ROOT", tmp_path)
    monkeypatch.setattr(panoptic_runs, "subprocess", SimpleNamespace(run=run))
    monkeypatch.setattr(panoptic_results, "machine", lambda: "a machine")
    return ran


def test_finished_runs_and_trainings_are_skipped(commands, tmp_path):
    panoptic_runs.main(["--only", "bptt", "--seeds", "0"])
    assert [command[0] for command in commands] == ["tools/train_net.py", "-m"]
    assert kept("bptt", 0, tmp_path).joinpath("results.json").exists()
    panoptic_runs.output_of("baseline", 0).mkdir(parents=True)
    (panoptic_runs.output_of("baseline", 0) / "model_final.pth").touch()
    panoptic_runs.main(["--only", "bptt", "baseline", "--seeds", "0"])
    assert commands[2:] == [["-m", "tools.pathfinder_study.panoptic_runs", "--test-here", "baseline", "0"]]


def test_pictures_of_two_models_are_put_side_by_side(commands, tmp_path):
    panoptic_runs.main(["--only", "baseline", "contracting", "--seeds", "1"])
    panoptic_runs.main(["--pictures", "1"])
    assert commands and [path.name for path in (tmp_path / PICTURES).iterdir()] == ["a.jpg"]
    with pytest.raises(SystemExit, match="baseline, seed 2, has not been run"):
        panoptic_runs.main(["--pictures", "2"])


def keep(root, rule, seed, things, steps=None, protocol=NEW):
    """A run whose PQ after t steps is steps(t)."""
    folder = kept(rule, seed, root, protocol)
    folder.mkdir(parents=True)
    metrics = {"PQ": things + 20, "PQ_th": things, "PQ_st": 90}
    (folder / "results.json").write_text(json.dumps({"panoptic_seg": metrics, "machine": "a machine"}))
    if steps:
        t = np.arange(1, 31)
        columns = {name: steps(t) for name in HEADINGS} | {"t": t}
        (folder / "quality_per_step.csv").write_text(steps_csv(columns))


@pytest.fixture
def study(tmp_path):
    """Five seeds of three rules: contracting gains 3 with little spread, progressive 3 with much."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    for seed, things in enumerate((38.0, 39.0, 40.0, 41.0, 42.0)):
        keep(tmp_path, "baseline", seed, things)
        gain = 3 + 0.5 * (seed - 2)
        keep(tmp_path, "contracting", seed, things + gain, lambda t, things=things: things + 30 - 2.0 * t)
        keep(tmp_path, "progressive", seed, things + 3 + 4 * (seed - 2), lambda t, things=things: things + 30 - 0.1 * t)
    return tmp_path


def test_paired_interval_agrees_with_scipy():
    first, second = dict(enumerate((1.0, 2.0, 4.0, 3.0, 7.0))), dict(enumerate((2.0, 2.5, 6.0, 3.5, 7.5)))
    found = paired_gain(first, second)
    truth = stats.ttest_rel([*second.values()], [*first.values()]).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx(tuple(truth), abs=1e-3)
    assert pytest.approx({df: stats.t.ppf(0.975, df) for df in T_QUANTILE}, abs=1e-4) == T_QUANTILE
    only_two = paired_gain(first, {1: 3.0, 2: 5.0, 9: 1.0})
    assert (only_two.spread.mean, only_two.spread.seeds) == (1, 2) and paired_gain(first, {1: 3.0}) is None


def test_table_has_means_ranges_and_gains(study):
    headers, rows = harder_table(load_panoptic(study), study)
    table = {row[0]: dict(zip(headers, row, strict=True)) for row in rows}
    assert [*table] == ["feedforward", "C-RBP, contracting", "progressive"]
    assert table["feedforward"]["PQ things at N"] == "40.0 (38.0 to 42.0)"
    assert table["feedforward"]["N"] == table["feedforward"]["gain"] == "-"
    row = table["C-RBP, contracting"]
    # Half a width of 2.776 sqrt(0.625 / 5).
    assert row["seeds"] == "5" and row["N"] == "10" and row["gain"] == "+3.0 (+2.0 to +4.0)"
    assert row["PQ at t = 30"] == "10.0 (8.0 to 12.0)"


def test_claim_is_decided_by_the_interval_of_five_seeds(study):
    claim = PanopticGain(study)
    assert claim.decide(None).holds is True
    assert load_panoptic(study).gain("progressive").low < 0 < load_panoptic(study).gain("progressive").high
    folder = kept("contracting", 4, study)
    (folder / "results.json").write_text(json.dumps({"panoptic_seg": {"PQ": 9, "PQ_th": 9, "PQ_st": 9}, "machine": ""}))
    assert claim.decide(None).holds is False
    shutil.rmtree(folder)
    assert claim.decide(None).holds is None


def test_earlier_runs_are_shown_until_new_ones_compare(study):
    assert "400 unseen ones" in harder_section(study, "")[0]
    for seed in OLD.seeds:
        keep(study, "baseline", seed, 30.0, protocol=OLD)
        keep(study, "bptt", seed, 33.0 + seed, protocol=OLD)
    assert load_panoptic(study).protocol is NEW
    for rule in ("contracting", "progressive"):
        for seed in NEW.seeds:
            shutil.rmtree(kept(rule, seed, study))
    assert load_panoptic(study).protocol is OLD and PanopticGain(study).decide(None).holds is None
    text, table = harder_section(study, "[figure](a.png)")
    assert "50 unseen ones" in text and "earlier runs of 3 seeds" in text and text.endswith("[figure](a.png).")
    assert "| BPTT | 3 |" in table and "contracting" not in table


def test_figure_has_every_step_of_every_rule(study, tmp_path):
    drawing = draw_harder_steps(study)
    assert len(drawing.rows) == 2 * 2 * 30  # metrics, rules, steps
    assert ["C-RBP, contracting", "PQ", 30, 10, 8, 12] in drawing.rows
    drawing.save(tmp_path, "x")
    assert (tmp_path / "x.png").stat().st_size


def test_section_without_runs_names_the_command(tmp_path):
    assert harder_section(tmp_path, "") == ["Not run: `python -m tools.pathfinder_study.panoptic_runs`."]
    assert draw_harder_steps(tmp_path) is None
