"""The committed study: pages and tables of its records, checkpoints with the reported scores."""

import json
import re
from collections import Counter
from dataclasses import replace

import pytest
from fvcore.common.config import CfgNode
from helpers.paths import ROOT

from tools.pathfinder_study.check import check_checkpoints
from tools.pathfinder_study.claims import evaluate_claims
from tools.pathfinder_study.costs import load_saved, measure_saved
from tools.pathfinder_study.figures import FIGURES
from tools.pathfinder_study.gallery import OTHERS
from tools.pathfinder_study.ledger import VERDICTS, rules_csv, verdicts_page
from tools.pathfinder_study.panoptic_results import RESULTS
from tools.pathfinder_study.predicates import CONVERGED
from tools.pathfinder_study.records import load_study
from tools.pathfinder_study.results_page import results_page
from tools.pathfinder_study.runs import BETTER_RATE, JOBS, SCALES, better_rates
from tools.pathfinder_study.summary import with_checkpoint, write_config, write_summary

SMALL = SCALES["small"]
FOLDER = ROOT / SMALL.folder
FIGURE_FOLDER = f"{SMALL.folder}/figures"


@pytest.fixture(scope="module")
def study():
    return load_study(FOLDER / "runs")


def test_pages_are_those_of_the_records(study, tmp_path):
    outcomes = evaluate_claims(study, ROOT)
    drawn = [stem for stem, (draw, _, _) in FIGURES.items() if draw(study)]
    written = [*drawn, *(stem for stem in OTHERS if (ROOT / FIGURE_FOLDER / f"{stem}.png").exists())]
    assert {path.stem for path in (ROOT / FIGURE_FOLDER).glob("*.png")} == {*written}
    assert results_page(study, outcomes, written, FIGURE_FOLDER, ROOT) == (ROOT / "docs/RESULTS.md").read_text()
    assert verdicts_page(study, written, FIGURE_FOLDER, ROOT) == (ROOT / VERDICTS).read_text()
    assert rules_csv(study) == (ROOT / RESULTS / "rules.csv").read_text()
    write_summary(tmp_path / "summary.json", study, outcomes, ROOT)
    assert (tmp_path / "summary.json").read_text() == (FOLDER / "summary.json").read_text()


def test_page_is_short_and_repeats_no_sentence():
    for path, limit in ((ROOT / "docs/RESULTS.md", 130), (ROOT / VERDICTS, 200)):
        text = path.read_text()
        assert len(text.splitlines()) <= limit
        prose = " ".join(line for line in text.splitlines() if not line.startswith("|"))
        sentences = Counter(part.strip() for part in re.split(r"(?<=[.:;])\s", prose))
        assert [part for part, count in sentences.items() if count > 1 and len(part) > 80] == []


def test_links_of_the_pages_exist():
    for page in (ROOT / "docs/RESULTS.md", ROOT / VERDICTS):
        targets = re.findall(r"\]\(([^)#]+)\)", page.read_text())
        assert targets and [target for target in targets if not (page.parent / target).exists()] == []


def test_verdicts_rest_on_converged_runs(study):
    assert CONVERGED == SMALL.iterations == 4000
    assert not (FOLDER.parent / "pathfinder_small_1000").exists()


def test_records_have_settings_checkpoint_and_commit(study):
    for record in study.records:
        run = JOBS[record.run]
        assert _last(record.options) == _last(run.all_options(SMALL)), record.path
        assert record.seed in run.seeds, record.path
        assert bool(record.checkpoint) == run.tested and len(record.commit) == 40, record.path
    assert {record.path for record in with_checkpoint(study, ROOT)} == {r.path for r in study.records if r.checkpoint}


def test_learning_rates_are_those_of_the_pilots(study):
    assert better_rates(study).items() >= BETTER_RATE.items() and better_rates(study)


def _last(options):
    return dict(zip(options[::2], options[1::2], strict=True))


def test_numbers_of_the_figures_are_those_of_the_records(study):
    for stem, (draw, _, _) in FIGURES.items():
        if drawing := draw(study):
            assert drawing.numbers() == (FOLDER / f"figures/{stem}.csv").read_text(), stem


def test_saved_bytes_are_counted_again(study):
    saved = load_saved(ROOT)
    for run in ("hgru_crbp", "hgru_progressive_far"):
        assert measure_saved(study.first(run), ROOT) == saved[run]
    assert saved["hgru_crbp"][80] == saved["hgru_crbp"][5] and saved["hgru_bptt"][80] > 10 * saved["hgru_bptt"][5]


def test_configs_of_checkpoints_are_those_of_the_records(study, tmp_path):
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / SMALL.folder / "checkpoints").mkdir(parents=True)
    for record in with_checkpoint(study, ROOT):
        write_config(record, tmp_path)
        committed = (ROOT / record.checkpoint).with_suffix(".yaml")
        assert (tmp_path / record.checkpoint).with_suffix(".yaml").read_text() == committed.read_text()
        solver = CfgNode.load_yaml_with_base(str(committed))["SOLVER"]
        assert solver["MAX_ITER"] == record.iterations, record.run


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """Folder of the stimuli, drawn once for all checkpoints."""
    return tmp_path_factory.mktemp("datasets")


@pytest.mark.parametrize("run", ["hgru_progressive_s0", "ff2_s0"])
def test_checkpoint_scores_on_new_stimuli_as_reported(run, datasets, tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(datasets))
    # F1 varies more on fewer stimuli; `--check` of the command takes all stimuli, and all steps.
    scale = replace(SMALL, tolerance=0.03, specs=dict.fromkeys(SMALL.specs, 128))
    rows = list(check_checkpoints(scale, ROOT, 20, tmp_path / "output", [run], max_steps=12))
    reported = json.loads((FOLDER / "summary.json").read_text())["checkpoints"]
    (entry,) = [entry for entry in reported if entry["checkpoint"].endswith(f"/{run}.pth")]
    expected = [tuple(row.values()) for row in entry["reported"] if row["steps"] <= 12]
    assert expected and [(row.spec, row.steps, row.reported) for row in rows] == expected
    assert all(row.holds for row in rows), rows
