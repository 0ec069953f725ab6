"""The gallery: one file with all pictures, and a contour traced step by step."""

import base64
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

from crbp_d2.data import generate_pathfinder
from crbp_d2.evaluation.pathfinder import FOUND
from tools.pathfinder_study.figures import FIGURES
from tools.pathfinder_study.panoptic_results import RESULTS
from tools.pathfinder_study.records import load_study
from tools.pathfinder_study.unrolling import load_model, unroll

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


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


def test_gallery_is_complete_and_loads_nothing(root):
    text = (root / "tools/pathfinder_study/results/pathfinder_small/gallery.html").read_text()
    page = Page(text)
    assert {attrs.get("id") for tag, attrs in page.tags if tag == "figure"} >= {*FIGURES, "trace"}
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


def test_frame_is_the_prediction_after_its_steps(root):
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


def test_checkpoint_of_another_model_raises(root, tmp_path):
    study = load_study(root / "tools/pathfinder_study/results/pathfinder_small/runs")
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    path = tmp_path / study.first("hgru_crbp").checkpoint
    path.parent.mkdir(parents=True)
    torch.save({"model": {}}, path)
    with pytest.raises(ValueError, match=r"hgru_crbp_s0\.pth does not fit configs"):
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
