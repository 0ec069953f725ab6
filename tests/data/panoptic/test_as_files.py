"""detectron2's own mapper, trainer, evaluators and visualizer on a set of register_panoptic."""

import copy
import pickle

import cv2
import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog
from detectron2.engine import DefaultTrainer
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import PolygonMasks
from detectron2.structures.masks import polygons_to_bitmask
from detectron2.utils.visualizer import Visualizer
from helpers import panoptic_set
from helpers.paths import ROOT

from crbp_d2 import add_crbp_config
from crbp_d2.data import semantic_map
from crbp_d2.data.panoptic.as_files import outlines

NAME = "as_files_set"


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    root = tmp_path_factory.mktemp("as_files")
    panoptic_set.write_set(root)
    panoptic_set.register(root, NAME)
    yield DatasetCatalog.get(NAME)
    DatasetCatalog.remove(NAME)
    MetadataCatalog.remove(NAME)


def union(polygons, shape):
    """By OpenCV at four times the size: independent of pycocotools' subpixel rules."""
    drawn = np.zeros((shape[0] * 4, shape[1] * 4), np.uint8)
    for points in polygons:
        one = np.zeros_like(drawn)
        cv2.fillPoly(one, [(points * 4 - 0).astype(np.int32)], 1)
        drawn |= one
    return drawn[2::4, 2::4].astype(bool)


@pytest.mark.parametrize("seed", range(6))
def test_polygons_are_the_mask_pixel_by_pixel(seed):
    generator = np.random.default_rng(seed)
    noise = cv2.GaussianBlur(generator.standard_normal((40, 50)), (0, 0), 1 + seed)
    mask = noise > 0
    if seed == 5:
        mask = np.ones((7, 9), bool)
        mask[2:4, 3:5] = mask[5, 7] = False
    polygons = outlines(mask)
    assert np.array_equal(union(polygons, mask.shape), mask)
    as_coco = polygons_to_bitmask([points.astype(float).ravel() for points in polygons], *mask.shape)
    assert (as_coco != mask).mean() < 0.01


def test_masks_and_label_maps_of_the_records(records):
    record = next(r for r in records if r["image_id"] == 4)
    ids = panoptic_set.ids_map()
    by_class = {a["category_id"]: a for a in record["annotations"] if not a["iscrowd"]}
    cat = polygons_to_bitmask([np.array(p) for p in by_class[0]["segmentation"]], *ids.shape)
    assert np.array_equal(cat, ids == 7)
    crowd = next(a for a in record["annotations"] if a["iscrowd"])
    assert crowd["segmentation"]["size"] == list(ids.shape)
    again = pickle.loads(pickle.dumps(record))
    assert again["annotations"][0]["segmentation"] == record["annotations"][0]["segmentation"]
    assert copy.deepcopy(record)["annotations"][0]["segmentation"] == record["annotations"][0]["segmentation"]
    assert "keypoints" not in record["annotations"][0] and record["annotations"][0].get("keypoints") is None


@pytest.mark.parametrize("mask_format", ["polygon", "bitmask"])
def test_detectron2s_mapper_gives_what_ours_gives(records, mask_format):
    mapper = DatasetMapper(True, augmentations=[], image_format="BGR", use_instance_mask=True,
                           instance_mask_format=mask_format)  # fmt: skip
    for record in records:
        mapped = mapper(record)
        assert np.array_equal(mapped["sem_seg"].numpy(), semantic_map(record))
        expected = [a for a in record["annotations"] if not a["iscrowd"]]
        assert mapped["instances"].gt_classes.tolist() == [a["category_id"] for a in expected]
        if expected:
            masks = mapped["instances"].gt_masks
            assert isinstance(masks, PolygonMasks) == (mask_format == "polygon")
            areas = masks.area() if mask_format == "polygon" else masks.tensor.sum(dim=(1, 2))
            assert areas.tolist() == [(panoptic_set.ids_map() == k).sum() for k in (7, 65536 * 3)]


def test_detectron2s_trainer_and_evaluator(records, tmp_path):
    cfg = get_cfg()
    add_crbp_config(cfg)
    cfg.merge_from_file(str(ROOT / "configs/quick/panoptic_R18_crbp_toy.yaml"))
    cfg.merge_from_list(
        ["MODEL.DEVICE", "cpu", "DATASETS.TRAIN", (NAME,), "DATASETS.TEST", (), "MODEL.ROI_HEADS.NUM_CLASSES", 2,
         "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 3, "SOLVER.MAX_ITER", 1, "SOLVER.IMS_PER_BATCH", 2,
         "DATALOADER.NUM_WORKERS", 0, "MODEL.RECURRENCE.STEPS", 2, "OUTPUT_DIR", str(tmp_path)]
    )  # fmt: skip
    trainer = DefaultTrainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    assert trainer.storage.latest()["loss_mask"][0] > 0 and trainer.storage.latest()["loss_sem_seg"][0] > 0
    evaluator = COCOEvaluator(NAME, ("bbox", "segm"), False, output_dir=str(tmp_path), use_fast_impl=False)
    evaluator.reset()
    assert len(evaluator._coco_api.getAnnIds()) == sum(len(r["annotations"]) for r in records)


def test_detectron2s_visualizer(records):
    record = records[0]
    image = np.zeros((record["height"], record["width"], 3), np.uint8)
    shown = {key: value for key, value in record.items() if key != "pan_seg_file_name"}
    drawn = Visualizer(image, MetadataCatalog.get(NAME)).draw_dataset_dict(shown).get_image()
    assert torch.tensor(drawn.copy()).float().std() > 0
