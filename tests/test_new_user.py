"""The page's commands on six images outside the repository, from an empty folder."""

import json
import os
import re
import subprocess
import sys

import cv2
import numpy as np
import pytest
from helpers import forked
from helpers.paths import ROOT

HEIGHT, WIDTH = 96, 128
CATEGORIES = [{"id": 3, "name": "box", "isthing": 1}, {"id": 17, "name": "ball", "isthing": 1},
              {"id": 40, "name": "floor", "isthing": 0}, {"id": 92, "name": "wall", "isthing": 0}]  # fmt: skip


def own_images(folder):
    """mine/panoptic.json, mine/panoptic, mine/images and a new picture."""
    generator = np.random.default_rng(0)
    for name in ("images", "panoptic"):
        (folder / "mine" / name).mkdir(parents=True)
    data = {"images": [], "annotations": [], "categories": CATEGORIES}
    for k in range(1, 8):
        image = np.full((HEIGHT, WIDTH, 3), (200, 180, 160), np.uint8)
        ids = np.full((HEIGHT, WIDTH), 92, np.uint8)
        image[60:], ids[60:] = (60, 90, 60), 40
        x, y = int(generator.integers(5, 40)), int(generator.integers(5, 50))
        image[y : y + 30, x : x + 30], ids[y : y + 30, x : x + 30] = (30, 30, 220), 3
        for canvas, value in ((image, (220, 60, 30)), (ids, 17)):
            cv2.circle(canvas, (95, int(y) + 15), 14, value, -1)
        if k == 7:
            cv2.imwrite(str(folder / "new.jpg"), image)
            return
        cv2.imwrite(str(folder / f"mine/images/{k}.jpg"), image)
        png = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        png[..., 2] = ids
        cv2.imwrite(str(folder / f"mine/panoptic/{k}.png"), png)
        segments = []
        for number in np.unique(ids).tolist():
            rows, columns = np.nonzero(ids == number)
            box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
            segments.append({"id": number, "category_id": number, "iscrowd": 0, "area": len(rows),
                             "bbox": [int(v) for v in box]})  # fmt: skip
        data["images"].append({"id": k, "file_name": f"{k}.jpg", "height": HEIGHT, "width": WIDTH})
        data["annotations"].append({"image_id": k, "file_name": f"{k}.png", "segments_info": segments})
        (folder / "mine/panoptic.json").write_text(json.dumps(data))


def words_of(commands, folder, environment):
    """The words of each command of a tool, as bash hands them over."""
    tools, said = folder / "tools", folder / "said"
    tools.mkdir(parents=True)
    (folder / "configs").symlink_to(ROOT / "configs")
    for tool in ROOT.glob("tools/*.py"):
        (tools / tool.name).write_text(f'#!/bin/sh\nprintf "%s\\0" "$@" >> {said}\nprintf "{tool.name}\\n" >> {said}\n')
        (tools / tool.name).chmod(0o755)
    subprocess.run(["bash", "-e", "-c", commands], check=True, env={**environment, "CRBP": str(folder)})
    lines = [line.split("\0") for line in said.read_text().splitlines()]
    return [[str(ROOT / "tools" / tool), *words] for *words, tool in lines]


@pytest.mark.slow
def test_the_commands_of_the_page(tmp_path):
    """The training by its command, the others forked."""
    own_images(tmp_path)
    script = re.findall(r"```bash\n(.*?)```", (ROOT / "docs/DATASETS.md").read_text(), flags=re.S)[0]
    assert len(script.splitlines()) < 10
    path = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    commands = words_of(script, tmp_path / "crbp", environment)
    assert [os.path.basename(words[0]) for words in commands] == [
        "check_dataset.py", "train_net.py", "train_net.py", "train_net.py", "predict.py"
    ]  # fmt: skip
    log = tmp_path / "log"
    for words in commands:
        if "SOLVER.MAX_ITER" in words:
            with log.open("a") as file:
                status = subprocess.run(words, cwd=tmp_path, env=environment, stdout=file, stderr=file).returncode
        else:
            status = forked.run(words[0], words[1:], log, environment=environment, folder=tmp_path)
        assert status == 0, log.read_text()[-6000:]
    assert "MODEL.ROI_HEADS.NUM_CLASSES is 2" in log.read_text()
    results = json.loads((tmp_path / "output/mine/inference/mine/results.json").read_text())
    assert results["panoptic_seg"]["PQ"] >= 0
    assert cv2.imread(str(tmp_path / "predictions/new.png")).shape[1] > 4 * 480
    (annotation,) = json.loads((tmp_path / "predictions/panoptic_predictions.json").read_text())["annotations"]
    assert {segment["category_id"] for segment in annotation["segments_info"]} <= {3, 17, 40, 92}
