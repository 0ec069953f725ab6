"""The report: figures with their numbers, summary, pages and tables."""

import csv
import json
import re
import shutil

import cv2
import pytest
import torch
from helpers.paths import ROOT
from helpers.study_records import RUNS, write_records

from crbp_d2.data import generate_pathfinder
from tools.pathfinder_study.advice import first_sentences, pilot_section
from tools.pathfinder_study.claims import REASONS, evaluate_claims
from tools.pathfinder_study.costs import SAVED
from tools.pathfinder_study.figures import FIGURES
from tools.pathfinder_study.paper import PANOPTIC, PATHFINDER_F1
from tools.pathfinder_study.predicates import Outcome, spread_of
from tools.pathfinder_study.records import load_study
from tools.pathfinder_study.report import readme_table, write_report
from tools.pathfinder_study.results_page import claims_section, results_page
from tools.pathfinder_study.scales import cost_factor, ours, papers
from tools.pathfinder_study.unrolling import load_model

FOLDER = "tools/pathfinder_study/results/pathfinder_small"


def figure_rows(root, stem):
    with (root / FOLDER / f"figures/{stem}.csv").open() as file:
        return list(csv.DictReader(file))


def test_figures_are_pictures_with_their_numbers(root):
    folder = root / FOLDER / "figures"
    for path in (
        *(folder / f"{stem}.png" for stem in (*FIGURES, "trace")),
        root / "docs/pictures/quality_over_steps.png",
    ):
        picture = cv2.imread(str(path))
        assert min(picture.shape[:2]) > 200 and picture.std() > 5, path
    assert not list(folder.glob("*.partial"))
    (row,) = [
        r for r in figure_rows(root, "quality_per_step")
        if (r["spec"], r["run"], r["t"]) == ("PF6s", "hgru_crbp", "48")
    ]  # fmt: skip
    assert [float(row[name]) for name in ("t / N", "F1", "minimum", "maximum", "seeds")] == [4, 0.94, 0.936, 0.944, 3]
    row = next(r for r in figure_rows(root, "state_space_tests") if r["run"] == "hgru_crbp")
    assert (float(row["D"]), float(row["p"]), float(row["median drift"])) == (0, 1, 0)
    assert {r["spec"] for r in figure_rows(root, "longer_contours")} == {"PF9s", "PF12s"}


def test_trace_has_the_scores_of_the_model(root):
    images, targets = generate_pathfinder("PF12s", 16, (0, 2))
    model = load_model(load_study(root / FOLDER / "runs").first("hgru_crbp"), root)
    model.sem_seg_head.test_steps = 6
    with torch.no_grad():
        outputs = model([{"image": torch.from_numpy(i[None].copy()), "height": 48, "width": 48} for i in images])
    found, wanted = outputs[0]["sem_seg"].argmax(0).numpy() == 1, targets[0] == 1
    (row,) = [r for r in figure_rows(root, "trace") if (r["run"], r["t"]) == ("hgru_crbp", "6")]
    assert float(row["F1"]) == pytest.approx(2 * (found & wanted).sum() / (found.sum() + wanted.sum()), abs=1e-5)


def test_summary_has_the_keys_that_programs_read(root):
    summary = json.loads((root / FOLDER / "summary.json").read_text())
    assert set(summary) == {"claims", "checkpoints"} and len(summary["claims"]) >= 26
    for claim in summary["claims"]:
        assert list(claim) == ["claim", "paper", "measure", "values", "ranges", "holds"]
        assert claim["holds"] in (True, False, None) and claim["values"]
    bptt, crbp = summary["checkpoints"]
    assert crbp["config"] == f"{FOLDER}/checkpoints/hgru_crbp_s0.yaml"
    assert (root / crbp["checkpoint"]).exists() and crbp["name"] == "hgru_crbp, seed 0"
    assert crbp["reported"][:3] == [
        {"spec": "PF6s", "steps": 12, "f1": 0.946},
        {"spec": "PF6s", "steps": 48, "f1": 0.936},
        {"spec": "PF9s", "steps": 12, "f1": 0.846},
    ]
    assert {entry["steps"] for entry in bptt["reported"]} == {6, 24}


def table_rows(page):
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("|")]


def test_results_have_rules_claims_and_scales(root):
    page = (root / "docs/RESULTS.md").read_text()
    rows = {row[0]: row[1:] for row in table_rows(page)}
    claims = {row[1]: row[2:] for row in table_rows(page) if row[0].isdigit()}
    assert rows["C-RBP"][:2] == ["12", "0.950 (0.946 to 0.954, 3 seeds)"] and "hgru_rbp" not in page
    assert claims["BPTT loses its quality past N"] == [
        "0.993 to 0.19",
        "BPTT lost 0.300 (0.300 to 0.300)",
        "holds",
        "PF6s F1 lost to 4 N > 0.03",
    ]
    assert claims["C-RBP is better than RBP"][2] == "not run"
    assert rows["paper"] == ["150", "14", "25", "15", "128", "28125", "20"] and rows["ours"][0] == "48"
    assert "nan" not in page and "None" not in page
    ledger = (root / "tools/pathfinder_study/results/VERDICTS.md").read_text()
    rows = {row[0]: row[1:] for row in table_rows(ledger)}
    assert rows["F1 at N, hGRU, C-RBP"][:2] == ["0.9804", "0.950 (0.946 to 0.954, 3 seeds)"]
    assert rows["panoptic_R50_rbp"][0] == "41.22" and "nan" not in ledger
    assert "PQ 82.05" in rows["toy scenes, 50 unseen ones, R-18, C-RBP 10 steps"][0]
    for config in re.findall(r"--config-file (configs/\S+\.yaml)", ledger):
        assert (ROOT / config).exists() or "CONFIG" in config, config


def test_page_with_all_runs_fits_its_limit(tmp_path):
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    study = load_study(write_records(tmp_path / "runs"))
    outcomes = [(claim, Outcome(o.values, n % 2 == 0)) for n, (claim, o) in enumerate(evaluate_claims(study, tmp_path))]
    (tmp_path / "docs/pictures").mkdir(parents=True)
    (tmp_path / "docs/pictures/quality_over_steps.png").touch()
    page = results_page(study, outcomes, [], f"{FOLDER}/figures", tmp_path)
    # The panoptic section has up to 10 more lines than the one that says it is not run.
    assert len(page.splitlines()) + 10 <= 130


def test_page_begins_with_five_sentences(root, tmp_path):
    title, summary, *_ = (root / "docs/RESULTS.md").read_text().split("\n\n")
    # Further lines of a wrapped item are indented.
    lines = summary.replace("\n   ", " ").splitlines()
    assert title == "# Results" and [line[:3] for line in lines] == ["1. ", "2. ", "3. ", "4. ", "5. "]
    assert "0.970 at N, 0.670 at 4 N" in lines[1] and "not run" in lines[2]
    assert "0.950 at N, 0.940 at 4 N, 0.900 at 16 N" in lines[3]
    study = load_study(write_records(tmp_path, ["hgru_progressive_far", "hgru_bptt"]))
    claim = evaluate_claims(study, root)[0][0]
    for holds, words in (
        (True, "1 hold and 0 fail."),
        (False, "0 hold and 1 fail."),
        (None, "0 hold and 0 fail, 1 wait for their runs."),
    ):
        lines = first_sentences(study, [(claim, Outcome({}, holds))]).splitlines()
        assert lines[4] == f"5. **Of 1 claims** {words}"
    assert "0.980 at N, 0.979 at 4 N" in lines[2] and "0.790 at 2 N, BPTT 0.570" in lines[2]


def test_reasons_are_written_once_for_failing_claims(root):
    claims = [claim for claim, _ in evaluate_claims(load_study(root / "none"), root) if claim.why == "series"][:3]
    held = [(claim, Outcome({}, holds)) for claim, holds in zip(claims, (False, True, False), strict=True)]
    assert claims_section(held)[2] == f"- 1, 3: {REASONS['series']}"
    assert len(claims_section([(claims[0], Outcome({"a": spread_of([1.0])}, None))])) == 2


def test_pilots_have_a_row_each_and_decide_the_advice(tmp_path):
    runs = ["hgru_bptt", "hgru_progressive_far", "hgru_progressive_mixed", "hgru_progressive_far_8"]
    text, table = pilot_section(load_study(write_records(tmp_path / "a", runs)))
    rows = {row[0]: row[2:] for row in table_rows(table)}
    assert rows["progressive_mixed"] == ["0.968", "0.002", "0.000", "yes"]
    assert rows["progressive_far, 8 recorded steps"] == ["0.960", "0.010", "0.000", "no"] and len(rows) == 5
    assert text.startswith("Advice: progressive_mixed") and "10 recorded steps" in text
    text, _ = pilot_section(load_study(write_records(tmp_path / "b", ["hgru_bptt", "hgru_progressive_far_8"])))
    assert text.startswith("No rule is both")


def test_readme_table_has_scores_and_memory(tmp_path):
    study = load_study(write_records(tmp_path / "runs"))
    (tmp_path / SAVED).parent.mkdir(parents=True)
    (tmp_path / SAVED).write_text(json.dumps({"hgru_crbp": {"5": 2**20, "80": 3 * 2**20}}))
    rows = {row[0]: row[1:] for row in table_rows(readme_table(study, tmp_path))}
    assert rows["C-RBP"] == ["0.950", "0.940", "0.900", "1 / 3"]
    assert rows["progressive_far, 10 recorded steps"] == ["0.975", "0.975", "0.975", "-"]


def test_report_on_nothing_and_on_single_runs(tmp_path):
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    folder = tmp_path / FOLDER
    write_report(folder, tmp_path)
    assert "Not run." in (tmp_path / "docs/RESULTS.md").read_text() and not list((folder / "figures").glob("*.png"))
    for run in ("hgru_deq", "hgru_progressive_time"):
        write_records(folder / "runs", [run])
        write_report(folder, tmp_path)
        shutil.rmtree(folder / "runs")
    stems = {path.stem for path in (folder / "figures").glob("*.png")}
    assert {"training", "stability"} <= stems and "quality_per_step" not in stems


def test_scales_and_cost(root):
    study = load_study(root / FOLDER / "runs")
    small, large = ours(study.first("hgru_crbp"), study), papers("configs/pathfinder/PF6s_hgru_crbp.yaml", ROOT)
    assert (small.image, small.dashes, small.steps) == (48, 6, 12) and papers("PF6s_ff6.yaml", ROOT).steps is None
    assert papers("PF6s_hgru_crbp_contracting.yaml", ROOT).steps == 10
    assert (large.image, large.channels, large.kernel, large.batch, large.iterations, large.steps) == (
        150, 25, 15, 128, 28125, 20,
    )  # fmt: skip
    assert cost_factor(small, large) == pytest.approx(8 * (150 / 48) ** 2 * (25 / 8) ** 2 * 20 / 12)
    assert papers("PF6s_convlstm_crbp.yaml", ROOT).steps == 60 and papers("PF6s_hgru_bptt.yaml", ROOT).steps == 6


def test_configs_of_the_paper_exist():
    assert all((ROOT / "configs" / f"{config}.yaml").exists() for config in PANOPTIC) and RUNS
    assert all((ROOT / "configs/pathfinder" / f"PF14_{run}.yaml").exists() for run in PATHFINDER_F1)
