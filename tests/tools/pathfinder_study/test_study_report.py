"""What is written from the records: figures with their numbers, summary, pages of results and analysis."""

import csv
import json
import re
import shutil

import cv2
import pytest
import torch
from helpers.paths import ROOT
from helpers.study_records import record, write_records

from crbp_d2.data import generate_pathfinder
from tools.pathfinder_study.comparisons import Outcome
from tools.pathfinder_study.figures import FIGURES
from tools.pathfinder_study.paper import PANOPTIC, PATHFINDER_F1
from tools.pathfinder_study.records import load_study
from tools.pathfinder_study.report import write_report
from tools.pathfinder_study.results_page import results_page
from tools.pathfinder_study.scales import cost_factor, ours, papers
from tools.pathfinder_study.summary_lines import summary_lines
from tools.pathfinder_study.unrolling import load_model
from tools.pathfinder_study.verdicts import evaluate_claims

FOLDER = "tools/pathfinder_study/results/pathfinder_small"


def figure_rows(root, stem):
    with (root / f"tools/pathfinder_study/results/pathfinder_small/figures/{stem}.csv").open() as file:
        return list(csv.DictReader(file))


def test_every_figure_is_a_picture_with_its_numbers(root):
    folder = root / "tools/pathfinder_study/results/pathfinder_small/figures"
    for stem in (*FIGURES, "panoptic_toy"):
        picture = cv2.imread(str(folder / f"{stem}.png"))
        assert min(picture.shape[:2]) > 200 and picture.std() > 5, stem
        assert len((folder / f"{stem}.csv").read_text().splitlines()) > 1, stem
    assert not list(folder.glob("*.partial"))
    (row,) = [
        r for r in figure_rows(root, "quality_per_step")
        if (r["spec"], r["run"], r["t"]) == ("PF6s", "hgru_crbp", "48")
    ]  # fmt: skip
    assert [float(row[name]) for name in ("t / N", "F1", "least", "greatest", "seeds")] == [4, 0.94, 0.936, 0.944, 3]
    row = next(r for r in figure_rows(root, "scores") if r["run"] == "hgru_bptt" and r["spec"] == "PF9s")
    assert (row["F1 at N"], row["F1 at 4 N"], row["F1 at 16 N"]) == ("0.77", "0.47", "0")
    row = next(r for r in figure_rows(root, "scores") if r["run"] == "hgru_rbp")
    assert row["F1 at N"] == ""
    row = next(r for r in figure_rows(root, "state_space_tests") if r["run"] == "hgru_crbp")
    assert (float(row["D"]), float(row["p"]), float(row["median drift"])) == (0, 1, 0)
    row = next(r for r in figure_rows(root, "budget") if r["run"] == "hgru_crbp")
    assert float(row["F1 at 16 N"]) == pytest.approx(0.95 - 0.01 * 5, abs=1e-5) and row["training s"] == "660"
    assert {r["spec"] for r in figure_rows(root, "longer_contours")} == {"PF9s", "PF12s"}


def test_summary_has_the_form_that_programs_read(root):
    summary = json.loads((root / "tools/pathfinder_study/results/pathfinder_small/summary.json").read_text())
    assert set(summary) == {"claims", "checkpoints"} and len(summary["claims"]) >= 12
    for claim in summary["claims"]:
        assert list(claim) == ["claim", "paper", "figure", "measure", "values", "ranges", "holds", "earlier"]
        assert claim["holds"] in (True, False, None) and claim["values"]
        assert claim["holds"] is None or (root / claim["figure"]).exists()
    bptt, crbp = summary["checkpoints"]
    assert crbp["config"] == "tools/pathfinder_study/results/pathfinder_small/checkpoints/hgru_crbp_s0.yaml"
    assert (root / crbp["checkpoint"]).exists() and crbp["name"] == "hgru_crbp, seed 0"
    assert crbp["reported"][:3] == [
        {"spec": "PF6s", "steps": 12, "f1": 0.946},
        {"spec": "PF6s", "steps": 48, "f1": 0.936},
        {"spec": "PF9s", "steps": 12, "f1": 0.846},
    ]
    assert {entry["steps"] for entry in bptt["reported"]} == {6, 24}


def table_rows(page):
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("|")]


def test_page_of_results(root):
    page = (root / "docs/RESULTS.md").read_text()
    rows = {row[0]: row[1:] for row in table_rows(page)}
    verdicts = {row[1]: row[2] for row in table_rows(page) if row[0].isdigit()}
    assert rows["F1 on the trained contours at N, hGRU, C-RBP"] == [
        "0.9804",
        "0.950 (0.946 to 0.954, 3 seeds)",
        "[figure](../tools/pathfinder_study/results/pathfinder_small/figures/scores.png)",
        "`python -m tools.pathfinder_study --only hgru_crbp`",
    ]
    assert rows["F1 on the trained contours at N, hGRU, RBP"][:3] == ["0.8332", "-", "-"]
    assert rows["PQ on COCO val2017, panoptic_R50_rbp"][:2] == ["41.22", "-"]
    assert verdicts["BPTT loses its quality past the trained steps"] == "holds, whichever seeds are compared"
    assert verdicts["C-RBP is better than RBP"] == "not run"
    assert rows["kernel side"] == ["15", "7"] and rows["steps, C-RBP"] == ["20", "12"]
    assert rows["C-RBP"][:4] == ["12", "1000", "660", "0.950 (0.946 to 0.954, 3 seeds)"]
    toy = rows["toy scenes, 50 unseen ones, R-18, C-RBP 10 steps"]
    assert toy[0] == "PQ 82.05, PQ things 73.21, PQ stuff 93.10" and toy[2] == "another processor"
    pictures = "side by side: [000007](../tools/pathfinder_study/results/panoptic_toy/side_by_side/000007.jpg)."
    assert pictures in " ".join(page.split())
    for target in re.findall(r"\]\(([^)]+)\)", page):
        assert (root / "docs" / target).exists() or (ROOT / "docs" / target).exists(), target
    widths = {len(row) for row in table_rows(page)}
    assert widths <= {3, 4, 5, 15} and "nan" not in page and "None" not in page
    for config in re.findall(r"--config-file (configs/\S+\.yaml)", page):
        assert (ROOT / config).exists() or "<run>" in config, config


def test_the_page_begins_with_five_lines(root, tmp_path):
    title, summary, *_ = (root / "docs/RESULTS.md").read_text().split("\n\n")
    # Of a wrapped item the further lines are indented.
    lines = summary.replace("\n   ", " ").splitlines()
    assert title == "# Results" and [line[:3] for line in lines] == ["1. ", "2. ", "3. ", "4. ", "5. "]
    assert "F1 0.970 at its N, and 0.670 after 4 N" in lines[1]
    assert "have not been run" in lines[2] and "C-RBP 0.950 at N and 0.940 at 4 N." in lines[3]
    earlier = load_study(write_records(tmp_path / "earlier", ["hgru_crbp"]))
    study = load_study(write_records(tmp_path / "runs", ["hgru_progressive", "hgru_bptt"]))
    lines = summary_lines(study, earlier, evaluate_claims(study, earlier)).splitlines()
    assert (
        "0.980 at N, 0.979 at 4 N, 0.975 at 16 N" in lines[2] and "0.790 at 2 N, BPTT at its best t 0.570" in lines[2]
    )
    assert "0.950 at N and 0.940 at 4 N after 1,000 iterations" in lines[3]
    claim = evaluate_claims(study, earlier)[0][0]
    verdicts = {True: "1 hold and 0 fail", False: "0 hold and 1 fail", None: "0 hold and 0 fail, 1 wait for their runs"}
    for holds, words in verdicts.items():
        line = summary_lines(study, earlier, [(claim, Outcome({}, holds))]).splitlines()[4]
        assert line == f"5. **Of 1 claims** {words}; every failure has its reason."


def test_the_analysis_sets_rules_side_by_side(root):
    page = (root / "docs/ANALYSIS.md").read_text()
    for target in re.findall(r"\]\(([^)]+)\)", page):
        assert (root / "docs" / target).exists(), target
    assert page.count("![") == 3 and "**C-RBP**: hgru_crbp (seed 0) has F1 0.946 at t = 12" in page
    residuals = {(r["run"], r["t"]): r["value"] for r in figure_rows(root, "settling") if r["quantity"] == "residual"}
    assert float(residuals["hgru_crbp", "12"]) == pytest.approx(0.85**12, rel=1e-4)
    assert {r["run"] for r in figure_rows(root, "states_side_by_side")} == {"hgru_bptt", "hgru_crbp"}
    images, targets = generate_pathfinder("PF12s", 16, (0, 2))
    model = load_model(load_study(root / FOLDER / "runs").first("hgru_crbp"), root)
    model.sem_seg_head.test_steps = 6
    with torch.no_grad():
        outputs = model([{"image": torch.from_numpy(i[None].copy()), "height": 48, "width": 48} for i in images])
    found, wanted = outputs[0]["sem_seg"].argmax(0).numpy() == 1, targets[0] == 1
    (row,) = [r for r in figure_rows(root, "trace") if (r["run"], r["t"]) == ("hgru_crbp", "6")]
    assert float(row["F1"]) == pytest.approx(2 * (found & wanted).sum() / (found.sum() + wanted.sum()), abs=1e-5)


def test_a_failing_claim_gets_its_reason(root):
    study = load_study(root / "tools/pathfinder_study/results/pathfinder_small/runs")
    outcomes = [(claim, outcome) for claim, outcome in evaluate_claims(study) if claim.id == "every_step_loses"]
    record_of = record("hgru_bptt_every_step")
    for scores in record_of["quality"].values():
        scores["f1"] = [0.5] * len(scores["f1"])
    folder = root / "other"
    folder.mkdir(exist_ok=True)
    (folder / "x.json").write_text(json.dumps(record_of))
    changed = load_study(folder)
    outcomes = [(claim, outcome) for claim, outcome in evaluate_claims(changed) if claim.id == "every_step_loses"]
    page = results_page(changed, load_study(root / "none"), outcomes, [], "figures", ROOT)
    assert "Of 1 claims 0 hold, 1 fail, 0 are not run." in page
    paragraphs = [" ".join(text.split()) for text in page.split("\n\n")]
    (reason,) = [text for text in paragraphs if text.startswith("**1. BPTT with a loss on every step loses")]
    assert "loses its quality past the trained steps: fails.** Measure: PF6s F1 lost from N to 4 N" in reason
    assert (
        "above 0.03 is missed by 0.03" in reason
        and "at the last state it does not contract (spectral radius 1.050)" in reason
    )


def test_a_report_on_nothing_and_on_each_run_alone(tmp_path):
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    folder = tmp_path / "tools/pathfinder_study/results/pathfinder_small"
    write_report(folder, tmp_path)
    assert "Not run." in (tmp_path / "docs/RESULTS.md").read_text() and not list((folder / "figures").glob("*.png"))
    for run in ("hgru_deq", "hgru_progressive_time"):
        write_records(folder / "runs", [run])
        write_report(folder, tmp_path)
        shutil.rmtree(folder / "runs")
    stems = {path.stem for path in (folder / "figures").glob("*.png")}
    assert {"scores", "budget"} <= stems and "quality_per_step" not in stems - {"quality_per_step"}


def test_scales_and_cost(root):
    study = load_study(root / "tools/pathfinder_study/results/pathfinder_small/runs")
    small, large = ours(study.first("hgru_crbp"), study), papers("configs/pathfinder/PF6s_hgru_crbp.yaml", ROOT)
    assert (small.image, small.dashes, small.steps) == (48, 6, 12) and papers("PF6s_ff6.yaml", ROOT).steps is None
    assert papers("PF6s_hgru_crbp_contracting.yaml", ROOT).steps == 10
    assert (large.image, large.channels, large.kernel, large.batch, large.iterations, large.steps) == (
        150, 25, 15, 128, 28125, 20,
    )  # fmt: skip
    assert cost_factor(small, large) == pytest.approx(8 * (150 / 48) ** 2 * (25 / 8) ** 2 * 20 / 12)
    assert papers("PF6s_convlstm_crbp.yaml", ROOT).steps == 60 and papers("PF6s_hgru_bptt.yaml", ROOT).steps == 6


def test_configs_of_the_paper_exist():
    assert all((ROOT / "configs" / f"{config}.yaml").exists() for config in PANOPTIC)
    assert all((ROOT / "configs/pathfinder" / f"PF14_{run}.yaml").exists() for run in PATHFINDER_F1)
