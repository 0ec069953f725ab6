"""detectron2's COCO names on two real images, with and without the panoptic_stuff folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

SAMPLE = Path(__file__).resolve().parents[3] / "shared/coco_sample"

LOAD_COCO = """
import json
from crbp_d2.data import PanopticDatasetMapper, check_dataset_available, register_builtin
from detectron2.data import DatasetCatalog
register_builtin()
name = "coco_2017_val_panoptic_separated"
check_dataset_available(name)
mapper = PanopticDatasetMapper(is_train=True, augmentations=[], image_format="RGB", use_instance_mask=True,
                               instance_mask_format="bitmask")
results = [mapper(record) for record in DatasetCatalog.get(name)]
print(json.dumps([[r["image_id"], sorted(r["instances"].gt_classes.tolist()), int(r["sem_seg"].max()),
                   r["instances"].gt_boxes.tensor.round().tolist()] for r in results]))
"""


def load_coco(root):
    """In a process of its own, because detectron2 reads DETECTRON2_DATASETS when it is imported."""
    done = subprocess.run(
        [sys.executable, "-c", LOAD_COCO],
        env={**os.environ, "DETECTRON2_DATASETS": str(root)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return {image_id: rest for image_id, *rest in json.loads(done.stdout.splitlines()[-1])}


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="the two real COCO images are absent")
def test_coco_names_work_with_and_without_the_stuff_folder(tmp_path):
    derived = load_coco(SAMPLE)
    truth = COCO(str(SAMPLE / "coco/annotations/instances_val2017.json"))
    of_category = {c: i for i, c in enumerate(sorted(truth.getCatIds()))}
    for image_id, (classes, largest, _) in derived.items():
        annotations = truth.loadAnns(truth.getAnnIds(imgIds=[image_id], iscrowd=False))
        assert classes == sorted(of_category[a["category_id"]] for a in annotations)
        assert largest in (*range(1, 54), 255)

    (tmp_path / "coco").mkdir()
    for part in (SAMPLE / "coco").iterdir():
        (tmp_path / "coco" / part.name).symlink_to(part)
    stuff = tmp_path / "coco/panoptic_stuff_val2017"
    stuff.mkdir()
    for png in (SAMPLE / "coco/panoptic_val2017").iterdir():
        height, width = cv2.imread(str(png)).shape[:2]
        cv2.imwrite(str(stuff / png.name), np.full((height, width), 53, np.uint8))
    prepared = load_coco(tmp_path)
    assert {image_id: rest[1] for image_id, rest in prepared.items()} == dict.fromkeys(derived, 53)
    assert {image_id: rest[0] for image_id, rest in prepared.items()} == {k: v[0] for k, v in derived.items()}
