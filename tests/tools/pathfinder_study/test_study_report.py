"""What is written from the records: figures with their numbers, summary, page of results, gallery."""

import base64
import csv
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest
import torch
from helpers.paths import ROOT
from helpers.study_records import record, write_records

from crbp_d2.data import generate_pathfinder
from crbp_d2.evaluation.visualize_pathfinder import FOUND
from tools.pathfinder_study.figures import FIGURES
from tools.pathfinder_study.panoptic_results import RESULTS
from tools.pathfinder_study.paper import PANOPTIC, PATHFINDER_F1
from tools.pathfinder_study.records import load_study
from tools.pathfinder_study.report import write_report
from tools.pathfinder_study.results_page import results_page
from tools.pathfinder_study.scales import cost_factor, ours, papers
from tools.pathfinder_study.summary_lines import summary_lines
from tools.pathfinder_study.unrolling import load_model, unroll
from tools.pathfinder_study.verdicts import evaluate_claims

FOLDER = "tools/pathfinder_study/results/pathfinder_small"
RUNS = ("hgru_bptt", "hgru_crbp", "ff2", "hgru_tbptt", "convlstm_bptt", "pf9s_bptt")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A repository of configs, records, two checkpoints and an evaluation of the toy model, with the report on it."""
    root = tmp_path_factory.mktemp("repository")
    (root / "configs").symlink_to(ROOT / "configs")
    folder = root / "tools/pathfinder_study/results/pathfinder_small"
    write_records(folder / "runs", RUNS)
    (folder / "checkpoints").mkdir()
    for run in ("hgru_bptt", "hgru_crbp"):
        model = build(folder / "runs" / f"{run}_s0.json", root)
        with torch.no_grad():  # weights that find something
            model.sem_seg_head.predictor.weight.mul_(200)
            model.sem_seg_head.predictor.bias.zero_()
        torch.save({"model": model.state_dict()}, folder / f"checkpoints/{run}_s0.pth")
    (root / RESULTS / "panoptic_toy").mkdir()
    (root / RESULTS / "panoptic_toy/quality_per_step.csv").write_text(
        "t,PQ,SQ,RQ,PQ_th,PQ_st,mask AP\n1,10.0,50.0,20.0,5.0,15.0,\n10,80.0,85.0,90.0,75.0,90.0,55.0\n"
    )
    (root / RESULTS / "panoptic_toy/results.json").write_text(
        json.dumps({"panoptic_seg": {"PQ": 82.05, "PQ_th": 73.21, "PQ_st": 93.1}, "machine": "another processor"})
    )
    (root / RESULTS / "panoptic_toy/side_by_side").mkdir()
    cv2.imwrite(
        str(root / RESULTS / "panoptic_toy/side_by_side/000007.jpg"),
        np.full((10, 20, 3), 90, np.uint8),
    )
    write_report(folder, root)
    return root


def build(path, root):
    from detectron2.config import get_cfg
    from detectron2.modeling import build_model

    from crbp_d2 import add_crbp_config

    cfg = get_cfg()
    add_crbp_config(cfg)
    cfg.merge_from_file(str(root / json.loads(path.read_text())["config"]))
    cfg.MODEL.DEVICE = "cpu"
    torch.manual_seed(0)
    return build_model(cfg)


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


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.urls, self.data, self._inside = [], [], "", None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, attrs))
        self.urls += [attrs[key] for key in ("src", "href", "srcset", "action", "poster") if key in attrs]
        self._inside = attrs.get("id") if tag == "script" else None

    def handle_data(self, data):
        if self._inside == "frames":
            self.data += data


def test_gallery_is_whole_and_loads_nothing(root):
    text = (root / "tools/pathfinder_study/results/pathfinder_small/gallery.html").read_text()
    page = Page(text)
    assert {attrs.get("id") for tag, attrs in page.tags if tag == "figure"} >= {*FIGURES, "panoptic_toy"}
    folder = root / "tools/pathfinder_study/results/pathfinder_small"
    for url in page.urls:
        assert url.startswith(("data:image/png;base64,", "data:image/jpeg;base64,", "#")) or (folder / url).exists(), (
            url[:80]
        )
    assert "http://" not in text and "https://" not in text and "url(" not in text and "@import" not in text
    ids = {attrs["id"] for _, attrs in page.tags if "id" in attrs}
    assert {url[1:] for url in page.urls if url.startswith("#")} <= ids
    images = [attrs for tag, attrs in page.tags if tag == "img"]
    assert all(attrs["alt"] for attrs in images)
    (scene,) = [attrs["src"] for attrs in images if attrs["alt"] == "toy scene 000007"]
    jpeg = base64.b64decode(scene.removeprefix("data:image/jpeg;base64,"))
    assert jpeg == (root / RESULTS / "panoptic_toy/side_by_side/000007.jpg").read_bytes()
    (slider,) = [attrs for tag, attrs in page.tags if tag == "input"]
    frames = json.loads(page.data)
    assert set(frames) == {"hgru_bptt", "hgru_crbp"} and (slider["min"], slider["max"]) == ("1", "48")
    assert all(len(run["frames"]) == len(run["f1"]) == 48 for run in frames.values())
    assert len(set(frames["hgru_crbp"]["frames"])) > 24
    labels = [attrs.get("for") for tag, attrs in page.tags if tag == "label"]
    assert labels == [slider["id"]]


def test_a_frame_is_the_prediction_after_its_steps(root):
    study = load_study(root / "tools/pathfinder_study/results/pathfinder_small/runs")
    unrolling = unroll(study, root)
    images, targets = generate_pathfinder("PF6s", 16, (0, 2))
    model = load_model(study.first("hgru_crbp"), root)
    model.sem_seg_head.test_steps = 5
    with torch.no_grad():
        outputs = model([{"image": torch.from_numpy(i[None].copy()), "height": 48, "width": 48} for i in images])
    probability = outputs[0]["sem_seg"].softmax(dim=0)[1].numpy()
    found = probability > 0.5
    assert 0 < found.sum() < found.size
    crbp = unrolling.runs[1]
    assert (crbp.run, crbp.trained) == ("hgru_crbp", 12)
    hits = (found & (targets[0] == 1)).sum()
    assert crbp.f1[4] == pytest.approx(2 * hits / (found.sum() + (targets[0] == 1).sum()))
    frame = cv2.imdecode(np.frombuffer(crbp.frames[4], np.uint8), cv2.IMREAD_COLOR)[..., ::-1].astype(float)
    expected = probability[..., None] * FOUND + (1 - probability[..., None]) * (images[0] // 2)[..., None]
    assert np.abs(frame - expected).max() <= 1.01


def test_a_checkpoint_of_another_model_is_refused(root, tmp_path):
    study = load_study(root / "tools/pathfinder_study/results/pathfinder_small/runs")
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    path = tmp_path / study.first("hgru_crbp").checkpoint
    path.parent.mkdir(parents=True)
    torch.save({"model": {}}, path)
    with pytest.raises(ValueError, match=r"hgru_crbp_s0\.pth does not fit configs/pathfinder/PF6s_hgru_crbp\.yaml"):
        unroll(study, tmp_path)


@pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium; the page's structure is tested without")
def test_slider_and_button_in_a_browser(root, tmp_path):
    probe = """<script>
      const out = [], text = (id) => document.getElementById(id).textContent;
      slider0 = document.getElementById("step");
      slider0.value = 7; slider0.dispatchEvent(new Event("input"));
      out.push(text("shown"), text("score-hgru_bptt"), document.getElementById("frame-hgru_crbp").src);
      document.getElementById("play").click();
      setTimeout(() => { out.push(text("shown")); document.getElementById("play").click();
        const p = document.createElement("pre"); p.id = "probe"; p.textContent = JSON.stringify(out);
        document.body.append(p); }, 600);
    </script>"""
    page = (root / "tools/pathfinder_study/results/pathfinder_small/gallery.html").read_text()
    path = tmp_path / "gallery.html"
    path.write_text(page.replace("</body>", probe + "</body>"))
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
               "--virtual-time-budget=3000", "--dump-dom", path.as_uri()]  # fmt: skip
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    shown, score, source, later = json.loads(re.search(r'<pre id="probe">(.*?)</pre>', dom)[1])
    frames = json.loads(Page(page).data)
    assert shown == "t = 7" and score.startswith("t = 1.2 N, F1 ")
    assert source == frames["hgru_crbp"]["frames"][6] and base64.b64decode(source.split(",")[1])[:4] == b"\x89PNG"
    assert later in ("t = 8", "t = 9")


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
