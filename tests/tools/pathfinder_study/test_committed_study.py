"""What is committed of the study: pages that say what the records say, checkpoints that score what is reported."""

import json
from dataclasses import replace

import pytest
from fvcore.common.config import CfgNode
from helpers.paths import ROOT

from tools.pathfinder_study.analysis import CAPTIONS, analysis_page
from tools.pathfinder_study.check import check_checkpoints
from tools.pathfinder_study.checkpoints import with_checkpoint, write_config
from tools.pathfinder_study.figures import FIGURES
from tools.pathfinder_study.harder_scenes import HARDER
from tools.pathfinder_study.pilots import better_rates
from tools.pathfinder_study.records import load_study
from tools.pathfinder_study.report import EARLIER
from tools.pathfinder_study.results_page import results_page
from tools.pathfinder_study.runs import BETTER_RATE, JOBS, SCALES
from tools.pathfinder_study.summary import write_summary
from tools.pathfinder_study.verdicts import evaluate_claims

SMALL, SHORT = SCALES["small"], SCALES["small_1000"]
FOLDER = ROOT / SMALL.folder


@pytest.fixture(scope="module")
def study():
    return load_study(FOLDER / "runs")


def test_pages_are_those_of_the_records(study, tmp_path):
    earlier = load_study(ROOT / EARLIER / "runs")
    outcomes = evaluate_claims(study, earlier)
    figures = f"{SMALL.folder}/figures"
    written = [path.stem for path in (ROOT / figures).glob("*.png")]
    assert {stem for stem, (draw, _, _) in FIGURES.items() if draw(study)} | {"panoptic_toy", HARDER, *CAPTIONS} == {
        *written
    }
    assert analysis_page(study, earlier, written, figures) == (ROOT / "docs/ANALYSIS.md").read_text()
    assert results_page(study, earlier, outcomes, written, figures, ROOT) == (ROOT / "docs/RESULTS.md").read_text()
    write_summary(tmp_path / "summary.json", study, outcomes, figures, ROOT)
    assert (tmp_path / "summary.json").read_text() == (FOLDER / "summary.json").read_text()


def test_every_record_is_of_the_settings_of_its_run_and_has_a_checkpoint_and_a_commit(study):
    for record in study.records:
        run = JOBS[record.run]
        assert _last(record.options) == _last(run.all_options(SMALL)), record.path
        assert run.rate is not None and record.seed in run.seeds, record.path
        assert bool(record.checkpoint) == run.tested and len(record.commit) == 40, record.path
    assert {record.path for record in with_checkpoint(study, ROOT)} == {r.path for r in study.records if r.checkpoint}


def test_learning_rates_are_those_that_the_pilots_choose(study):
    assert better_rates(study).items() >= BETTER_RATE.items() and better_rates(study)


def _last(options):
    return dict(zip(options[::2], options[1::2], strict=True))


def test_numbers_beside_the_figures_are_those_of_the_records(study):
    for stem, (draw, _, _) in FIGURES.items():
        if drawing := draw(study):
            assert drawing.numbers() == (FOLDER / f"figures/{stem}.csv").read_text(), stem


def test_configs_of_checkpoints_are_those_of_the_records(study, tmp_path):
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / SMALL.folder / "checkpoints").mkdir(parents=True)
    for record in with_checkpoint(study, ROOT):
        write_config(record, tmp_path)
        committed = (ROOT / record.checkpoint).with_suffix(".yaml")
        assert (tmp_path / record.checkpoint).with_suffix(".yaml").read_text() == committed.read_text()
        solver = CfgNode.load_yaml_with_base(str(committed))["SOLVER"]
        assert solver["MAX_ITER"] == record.iterations, record.run


def test_the_shorter_trainings_are_whole():
    earlier = load_study(ROOT / EARLIER / "runs")
    assert len(earlier.records) == 37 and earlier.first("recipe_heavy").label
    assert {record.iterations for record in earlier["hgru_crbp"]} == {SHORT.iterations}
    summary = json.loads((ROOT / EARLIER / "summary.json").read_text())
    assert len(summary["checkpoints"]) == 25 and len(summary["claims"]) == 27
    for entry in summary["checkpoints"]:
        assert (ROOT / entry["checkpoint"]).exists() and (ROOT / entry["config"]).exists()
    assert all((ROOT / claim["figure"]).exists() for claim in summary["claims"])


CHECKED = [(SMALL, run) for run in ("hgru_progressive_s0", "hgru_bptt_s0", "ff2_s0")]
CHECKED += [(SHORT, "recipe_contraction_lr"), (SHORT, "ff2")]
CHECKED = [(scale, run) for scale, run in CHECKED if (ROOT / scale.folder / f"checkpoints/{run}.pth").exists()]


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """Where stimuli are drawn, once for all checkpoints."""
    return tmp_path_factory.mktemp("datasets")


@pytest.mark.parametrize(("committed", "run"), CHECKED)
def test_a_committed_checkpoint_scores_on_new_stimuli_what_is_reported(committed, run, datasets, tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(datasets))
    # On fewer stimuli than are reported on, F1 scatters more; `--check` of the command takes all, and all steps.
    scale = replace(committed, tolerance=0.03, specs=dict.fromkeys(committed.specs, 128))
    rows = list(check_checkpoints(scale, ROOT, 20, tmp_path / "output", [run], most_steps=12))
    reported = json.loads((ROOT / committed.folder / "summary.json").read_text())["checkpoints"]
    (entry,) = [entry for entry in reported if entry["checkpoint"].endswith(f"/{run}.pth")]
    expected = [tuple(row.values()) for row in entry["reported"] if row["steps"] <= 12]
    assert expected and [(row.spec, row.steps, row.reported) for row in rows] == expected
    assert all(row.holds for row in rows), rows
