"""Registration, derivation and mapping against a hand-made panoptic set."""

import json

import numpy as np
import pytest
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from helpers.panoptic_set import CATEGORIES, expected_semantic, ids_map, register
from pycocotools.coco import COCO

from crbp_d2.data import (
    check_class_counts,
    check_dataset_available,
    register_panoptic,
    semantic_map,
    write_instances_json,
)


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


def test_semantic_map_crowds_and_void(root):
    register(root)
    record = DatasetCatalog.get("tiny")[0]
    np.testing.assert_array_equal(semantic_map(record), expected_semantic())
    assert [a["iscrowd"] for a in record["annotations"]] == [0, 0, 1]
    assert [a["category_id"] for a in record["annotations"]] == [0, 1, 0]
    assert record["annotations"][1]["bbox"] == [20, 18, 30, 12]


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


def test_registering_again_takes_the_corrected_classes(root):
    register(root)
    rewrite(root, lambda data: data["categories"][0].update(name="horse"))
    register(root)
    assert MetadataCatalog.get("tiny").thing_classes == ["horse", "dog"]
    assert len(DatasetCatalog.get("tiny")) == 2


def test_refusals_of_files(root):
    with pytest.raises(FileNotFoundError, match="no file at panoptic_json.*nowhere.json"):
        register_panoptic("tiny", str(root / "nowhere.json"), "a", "b")
    rewrite(root, lambda data: data["annotations"][0]["segments_info"][0].update(category_id=77))
    register(root)
    with pytest.raises(ValueError, match=r"image 4.*category_id: segment 300: 77"):
        DatasetCatalog.get("tiny")
    rewrite(root, lambda data: data["annotations"].append({**data["annotations"][1]}))
    rewrite(root, lambda data: data["annotations"][0]["segments_info"][0].update(category_id=30))
    with pytest.raises(ValueError, match=r"\(image 2\): annotations\[\].image_id"):
        DatasetCatalog.get("tiny")
    rewrite(root, lambda data: data["annotations"].pop())
    (root / "images/002.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"images\[\].file_name: .*'002.png' in"):
        DatasetCatalog.get("tiny")


def test_refusals_of_pngs(root):
    register(root)
    record = DatasetCatalog.get("tiny")[0]
    with pytest.raises(ValueError, match=r"004.png \(image 4\): .* 60 x 40 px"):
        semantic_map({**record, "height": 41})
    with pytest.raises(ValueError, match=r"004.png .*in the PNG: \[513\]"):
        semantic_map({**record, "segments_info": record["segments_info"][:-1]})


def test_categories_that_cannot_be_used_are_named(root):
    rewrite(root, lambda data: data["categories"].append(CATEGORIES[0]))
    with pytest.raises(ValueError, match=r"panoptic.json: categories\[\].id: 9 "):
        register(root)


def test_class_counts_name_the_key_and_both_values(root):
    register(root)
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = "PanopticFPN"
    cfg.MODEL.ROI_HEADS.NUM_CLASSES, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 2, 3
    check_class_counts(cfg, "tiny")
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 2
    with pytest.raises(ValueError, match="SEM_SEG_HEAD.NUM_CLASSES is 2, .* has 3"):
        check_class_counts(cfg, "tiny")


def test_availability(root):
    register(root)
    check_dataset_available("tiny")
    (root / "images").rename(root / "elsewhere")
    with pytest.raises(FileNotFoundError, match=rf"tiny is missing: there is no {root}/images .*`make demo`"):
        check_dataset_available("tiny")
    with pytest.raises(KeyError, match="no data set is named 'tinny'"):
        check_dataset_available("tinny")
