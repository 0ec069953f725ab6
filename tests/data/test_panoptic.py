"""Registration, derivation and mapping against a hand-made panoptic set."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data import transforms as T
from pycocotools.coco import COCO

from crbp_d2.data import (
    PanopticDatasetMapper,
    check_class_counts,
    check_dataset_available,
    register_panoptic,
    semantic_map,
    write_instances_json,
)

SAMPLE = Path(__file__).resolve().parents[3] / "shared/coco_sample"
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


def write_set(root: Path, things=True):
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


@pytest.fixture
def root(tmp_path):
    write_set(tmp_path)
    yield tmp_path
    for name in [n for n in DatasetCatalog.list() if n.startswith("tiny")]:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def register(root, name="tiny", **kwargs):
    register_panoptic(name, str(root / "panoptic.json"), str(root / "panoptic"), str(root / "images"), **kwargs)


def rewrite(root, change):
    data = json.loads((root / "panoptic.json").read_text())
    change(data)
    (root / "panoptic.json").write_text(json.dumps(data))


def test_metadata_follows_the_separated_convention(root):
    register(root)
    metadata = MetadataCatalog.get("tiny")
    assert metadata.thing_classes == ["cat", "dog"]
    assert metadata.stuff_classes == ["things", "sea", "sky"]
    assert metadata.thing_dataset_id_to_contiguous_id == {9: 0, 12: 1}
    assert metadata.stuff_dataset_id_to_contiguous_id == {0: 0, 21: 1, 30: 2}
    assert metadata.thing_colors[0] == [1, 2, 3] and len(metadata.stuff_colors) == 3
    assert metadata.evaluator_type == "coco_panoptic_seg" and metadata.ignore_label == 255
    assert not hasattr(metadata, "json_file")


def expected_semantic():
    semantic = np.full((HEIGHT, WIDTH), 255)
    for segment_id, value in {300: 2, 70000: 1, 7: 0, 65536 * 3: 0, 513: 0}.items():
        semantic[ids_map() == segment_id] = value
    return semantic


def test_semantic_map_crowds_and_void(root):
    register(root)
    record = DatasetCatalog.get("tiny")[0]
    np.testing.assert_array_equal(semantic_map(record), expected_semantic())
    assert [a["iscrowd"] for a in record["annotations"]] == [0, 0, 1]
    assert [a["category_id"] for a in record["annotations"]] == [0, 1, 0]
    assert record["annotations"][1]["bbox"] == [20, 18, 30, 12]


def mapper(**kwargs):
    settings = {"is_train": True, "augmentations": [], "image_format": "RGB", "use_instance_mask": True}
    return PanopticDatasetMapper(**{**settings, **kwargs})


def test_mapper_gives_instances_without_crowds(root):
    register(root)
    record = DatasetCatalog.get("tiny")[0]
    before = copy.deepcopy(record)
    result = mapper()(record)
    assert record == before
    instances = result["instances"]
    assert instances.gt_classes.tolist() == [0, 1]
    for k, segment_id in enumerate((7, 65536 * 3)):
        np.testing.assert_array_equal(instances.gt_masks.tensor[k].numpy(), ids_map() == segment_id)
    # The dog covers the lower right corner of the cat, which does not change the cat's box.
    assert instances.gt_boxes.tensor.tolist() == [[5, 5, 25, 20], [20, 18, 50, 30]]
    np.testing.assert_array_equal(result["sem_seg"].numpy(), expected_semantic())
    assert result["image"].shape == (3, HEIGHT, WIDTH)


def test_image_without_instances(root):
    register(root)
    result = mapper()(DatasetCatalog.get("tiny")[1])
    assert len(result["instances"]) == 0
    assert result["instances"].gt_masks.tensor.shape == (0, HEIGHT, WIDTH)
    assert result["instances"].gt_boxes.tensor.shape == (0, 4)
    assert set(result["sem_seg"].unique().tolist()) == {1, 2, 255}


def test_augmentation_keeps_image_masks_and_classes_together(root):
    register(root)
    augmentations = [
        T.RandomFlip(prob=1.0),
        T.RandomCrop("absolute", (30, 44)),
        T.Resize((90, 132), interp=0),
    ]
    np.random.seed(0)
    result = mapper(augmentations=augmentations)(DatasetCatalog.get("tiny")[0])
    red = result["image"][0].numpy()
    assert red.shape == (90, 132) == tuple(result["sem_seg"].shape)
    semantic_of_red = np.array([255, 2, 1, 0, 0, 0])
    np.testing.assert_array_equal(result["sem_seg"].numpy(), semantic_of_red[red // 10])
    for mask, cls, box in zip(
        result["instances"].gt_masks.tensor.numpy(), result["instances"].gt_classes.tolist(),
        result["instances"].gt_boxes.tensor.tolist(), strict=True,
    ):  # fmt: skip
        np.testing.assert_array_equal(mask, red == {0: 30, 1: 40}[cls])
        rows, columns = np.nonzero(mask)
        assert box == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_mapper_in_inference_is_detectron2s(root):
    register(root)
    result = mapper(is_train=False)(DatasetCatalog.get("tiny")[0])
    assert "instances" not in result and "sem_seg" not in result and "annotations" not in result
    assert result["height"] == HEIGHT and result["image"].shape == (3, HEIGHT, WIDTH)


def test_mapper_takes_detectron2s_separated_dicts(root):
    semantic = np.zeros((HEIGHT, WIDTH), np.uint8)
    semantic[:10] = 3
    cv2.imwrite(str(root / "semantic.png"), semantic)
    polygon = [5.0, 5.0, 25.0, 5.0, 25.0, 20.0, 5.0, 20.0]
    record = {
        "file_name": str(root / "images/004.png"), "height": HEIGHT, "width": WIDTH, "image_id": 4,
        "sem_seg_file_name": str(root / "semantic.png"),
        "annotations": [{"bbox": [5, 5, 25, 20], "bbox_mode": 0, "category_id": 1, "segmentation": [polygon]}],
    }  # fmt: skip
    result = mapper()(record)
    np.testing.assert_array_equal(result["sem_seg"].numpy(), semantic)
    assert result["instances"].gt_classes.tolist() == [1]


def test_instances_json_is_read_back_by_pycocotools(root, tmp_path):
    register(root)
    path = tmp_path / "instances.json"
    write_instances_json("tiny", str(path))
    coco = COCO(str(path))
    annotations = coco.loadAnns(coco.getAnnIds(imgIds=[4]))
    assert [(a["category_id"], a["iscrowd"]) for a in annotations] == [(9, 0), (12, 0), (9, 1)]
    for annotation, segment_id in zip(annotations, (7, 65536 * 3, 513), strict=True):
        mask = ids_map() == segment_id
        np.testing.assert_array_equal(coco.annToMask(annotation), mask)
        assert annotation["area"] == mask.sum()
    assert annotations[1]["bbox"] == [20, 18, 30, 12]
    assert {c["id"]: c["name"] for c in coco.dataset["categories"]} == {9: "cat", 12: "dog"}


def test_registering_twice(root):
    register(root)
    register(root)
    with pytest.raises(ValueError, match="'tiny' is taken.*panoptic.json"):
        register_panoptic("tiny", str(root / "panoptic.json"), str(root / "other"), str(root / "images"))


def test_refusals_of_files(root):
    with pytest.raises(FileNotFoundError, match="no file at panoptic_json.*nowhere.json"):
        register_panoptic("tiny", str(root / "nowhere.json"), "a", "b")
    rewrite(root, lambda data: data["annotations"][0]["segments_info"][0].update(category_id=77))
    register(root)
    with pytest.raises(ValueError, match="panoptic.json: a segment of image 4 has the category 77"):
        DatasetCatalog.get("tiny")
    rewrite(root, lambda data: data["annotations"].append({**data["annotations"][1]}))
    rewrite(root, lambda data: data["annotations"][0]["segments_info"][0].update(category_id=30))
    with pytest.raises(ValueError, match="annotates image 2 a second time"):
        DatasetCatalog.get("tiny")
    rewrite(root, lambda data: data["annotations"].pop())
    (root / "images/002.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"names 002.png, which is not in .*images"):
        DatasetCatalog.get("tiny")


def test_refusals_of_pngs(root):
    register(root)
    record = DatasetCatalog.get("tiny")[0]
    with pytest.raises(ValueError, match="004.png is 60 x 40 px, but the JSON says 60 x 41"):
        semantic_map({**record, "height": 41})
    with pytest.raises(ValueError, match=r"only in the PNG \[513\], only in the JSON \[\]"):
        semantic_map({**record, "segments_info": record["segments_info"][:-1]})


@pytest.mark.parametrize(
    "change,message",
    [
        (lambda data: data["categories"].append(CATEGORIES[0]), "category id 9 occurs more than once"),
        (lambda data: [c.update(isthing=1) for c in data["categories"]], "4 thing and 0 stuff"),
    ],
)
def test_refusals_of_categories(root, change, message):
    rewrite(root, change)
    with pytest.raises(ValueError, match=message):
        register(root)


def test_class_counts_name_the_key_and_both_values(root):
    register(root)
    cfg = get_cfg()
    cfg.MODEL.ROI_HEADS.NUM_CLASSES, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 2, 3
    check_class_counts(cfg, "tiny")
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 2
    with pytest.raises(ValueError, match="MODEL.SEM_SEG_HEAD.NUM_CLASSES is 2, but the data set tiny has 3"):
        check_class_counts(cfg, "tiny")


def test_availability(root):
    register(root)
    check_dataset_available("tiny")
    (root / "images").rename(root / "elsewhere")
    with pytest.raises(FileNotFoundError, match=rf"tiny is missing: there is no {root}/images .*`make demo`"):
        check_dataset_available("tiny")
    with pytest.raises(KeyError, match="no data set is named 'tinny'"):
        check_dataset_available("tinny")


LOAD_COCO = """
import json
from crbp_d2.data import PanopticDatasetMapper, check_dataset_available
from detectron2.data import DatasetCatalog
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


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="the two real COCO images are not beside this repository")
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
