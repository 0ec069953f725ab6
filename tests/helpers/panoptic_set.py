"""A COCO-panoptic set of two hand-made images, with a crowd, void pixels and an occlusion."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from crbp_d2.data import register_panoptic

HEIGHT, WIDTH = 40, 60
CATEGORIES = [
    {"id": 9, "name": "cat", "isthing": 1, "color": [1, 2, 3]},
    {"id": 30, "name": "sky", "isthing": 0},
    {"id": 12, "name": "dog", "isthing": 1},
    {"id": 21, "name": "sea", "isthing": 0},
]
# id: (category, crowd, rows, columns); the ids need all three colour channels, the rest is void.
SEGMENTS = {
    300: (30, 0, slice(0, 15), slice(0, 60)),
    70000: (21, 0, slice(15, 38), slice(0, 60)),
    7: (9, 0, slice(5, 20), slice(5, 25)),
    65536 * 3: (12, 0, slice(18, 30), slice(20, 50)),
    513: (9, 1, slice(30, 36), slice(10, 40)),
}


def ids_map():
    ids = np.zeros((HEIGHT, WIDTH), dtype=np.int64)
    for segment_id, (_, _, rows, columns) in SEGMENTS.items():
        ids[rows, columns] = segment_id
    return ids


def write_set(root: Path):
    """Two images, the second without things; each pixel of an image has the red value 10 x its segment's rank."""
    (root / "images").mkdir()
    (root / "panoptic").mkdir()
    data = {"images": [], "annotations": [], "categories": CATEGORIES}
    for image_id in (4, 2):
        ids = ids_map()
        if image_id == 2:
            ids[ids == 7] = ids[ids == 65536 * 3] = ids[ids == 513] = 70000
        rank = {segment_id: k for k, segment_id in enumerate(SEGMENTS, start=1)}
        image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        for segment_id, k in rank.items():
            image[ids == segment_id, 0] = 10 * k
        png = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=2).astype(np.uint8)
        cv2.imwrite(str(root / f"images/{image_id:03d}.png"), image[..., ::-1])
        cv2.imwrite(str(root / f"panoptic/{image_id:03d}.png"), png[..., ::-1])
        data["images"].append({"id": image_id, "file_name": f"{image_id:03d}.png", "height": HEIGHT, "width": WIDTH})
        segments = []
        for segment_id, (category, crowd, _, _) in SEGMENTS.items():
            rows, columns = np.nonzero(ids == segment_id)
            if len(rows):
                box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
                segments.append(
                    {"id": segment_id, "category_id": category, "iscrowd": crowd, "area": len(rows),
                     "bbox": [int(v) for v in box]}
                )  # fmt: skip
        data["annotations"].append(
            {"image_id": image_id, "file_name": f"{image_id:03d}.png", "segments_info": segments}
        )
    (root / "panoptic.json").write_text(json.dumps(data))
    return data


def expected_semantic():
    semantic = np.full((HEIGHT, WIDTH), 255)
    for segment_id, value in {300: 2, 70000: 1, 7: 0, 65536 * 3: 0, 513: 0}.items():
        semantic[ids_map() == segment_id] = value
    return semantic


def register(root, name="tiny", **kwargs):
    register_panoptic(name, str(root / "panoptic.json"), str(root / "panoptic"), str(root / "images"), **kwargs)


@pytest.fixture
def root(tmp_path):
    """The set in a folder of its own; its names are freed afterwards."""
    write_set(tmp_path)
    yield tmp_path
    for name in [n for n in DatasetCatalog.list() if n.startswith("tiny")]:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
