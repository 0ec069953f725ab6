"""Evaluators compared with metrics derived by hand on a two-image panoptic set."""

import json
import logging
import math
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, Instances
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from crbp_d2 import add_crbp_config, register_panoptic
from crbp_d2.evaluation import build_panoptic_evaluator, results_table, write_results
from tools.data_sets import free

SIZE = 100
CATEGORIES = [
    {"id": 1, "name": "cat", "isthing": 1, "color": [250, 10, 10]},
    {"id": 2, "name": "dog", "isthing": 1, "color": [10, 250, 10]},
    {"id": 3, "name": "sky", "isthing": 0, "color": [10, 10, 250]},
    {"id": 4, "name": "sea", "isthing": 0, "color": [250, 250, 10]},
]
SKY, SEA = slice(0, 50), slice(50, 100)


def box(top, left, bottom, right):
    mask = np.zeros((SIZE, SIZE), bool)
    mask[top:bottom, left:right] = True
    return mask


# Image 1: a cat and a dog before sky and sea. Image 2: a cat before sky and sea.
THINGS = {1: [(0, box(10, 10, 40, 40)), (1, box(60, 50, 90, 90))], 2: [(0, box(20, 20, 60, 60))]}


def segmentation(things, stuff=(SKY, SEA)):
    """H x W ids and segments with contiguous ids: stuff first, things over it."""
    ids, segments = np.zeros((SIZE, SIZE), int), []
    for k, rows in enumerate(stuff, start=1):
        ids[rows] = k
        segments.append({"id": k, "isthing": False, "category_id": k})
    for k, (cls, mask) in enumerate(things, start=3):
        ids[mask] = k
        segments.append({"id": k, "isthing": True, "category_id": cls})
    return ids, segments


@pytest.fixture
def dataset(tmp_path):
    data = {"images": [], "annotations": [], "categories": CATEGORIES}
    for folder in ("images", "panoptic"):
        (tmp_path / folder).mkdir()
    for image_id, things in THINGS.items():
        ids, segments = segmentation(things)
        cv2.imwrite(str(tmp_path / f"images/{image_id}.png"), np.full((SIZE, SIZE, 3), 128, np.uint8))
        cv2.imwrite(str(tmp_path / f"panoptic/{image_id}.png"), np.stack([0 * ids, 0 * ids, ids], axis=2))
        data["images"].append({"id": image_id, "file_name": f"{image_id}.png", "height": SIZE, "width": SIZE})
        infos = []
        for segment in segments:
            mask = (ids == segment["id"]).astype(np.uint8)
            category = segment["category_id"] + (1 if segment["isthing"] else 2)
            infos.append({"id": segment["id"], "category_id": category, "iscrowd": 0, "area": int(mask.sum()),
                          "bbox": list(cv2.boundingRect(mask))})  # fmt: skip
        data["annotations"].append({"image_id": image_id, "file_name": f"{image_id}.png", "segments_info": infos})
    (tmp_path / "panoptic.json").write_text(json.dumps(data))
    register_panoptic("eval_set", f"{tmp_path}/panoptic.json", f"{tmp_path}/panoptic", f"{tmp_path}/images")
    yield tmp_path
    free("eval_set", "eval_set_as_files")


def output(things, stuff=(SKY, SEA), scores=None):
    ids, segments = segmentation(things, stuff)
    semantic = np.zeros((3, SIZE, SIZE))
    for cls, rows in enumerate(stuff, start=1):
        semantic[cls, rows] = 1
    for _, mask in things:
        semantic[0][mask] = 2
    instances = Instances((SIZE, SIZE))
    masks = np.stack([mask for _, mask in things]) if things else np.zeros((0, SIZE, SIZE), bool)
    instances.pred_masks = torch.as_tensor(masks)
    boxes = [cv2.boundingRect(mask.astype(np.uint8)) for mask in masks]
    instances.pred_boxes = Boxes(torch.tensor([[x, y, x + w, y + h] for x, y, w, h in boxes]).float().reshape(-1, 4))
    instances.pred_classes = torch.tensor([cls for cls, _ in things], dtype=torch.long)
    instances.scores = torch.tensor(scores or [0.9] * len(things))
    return {"panoptic_seg": (torch.as_tensor(ids), segments), "instances": instances,
            "sem_seg": torch.as_tensor(semantic)}  # fmt: skip


def evaluate(dataset, predictions, pictures=0, detections=100):
    cfg = get_cfg()
    add_crbp_config(cfg)
    cfg.TEST.PICTURES, cfg.TEST.DETECTIONS_PER_IMAGE = pictures, detections
    evaluator = build_panoptic_evaluator(cfg, "eval_set", str(dataset / "out"))
    evaluator.reset()
    for record in DatasetCatalog.get("eval_set"):
        if record["image_id"] in predictions:
            evaluator.process([record], [predictions[record["image_id"]]])
    return evaluator.evaluate()


def test_a_perfect_prediction_is_perfect(dataset):
    results = evaluate(dataset, {k: output(things) for k, things in THINGS.items()})
    panoptic = results["panoptic_seg"]
    assert {k: v for k, v in panoptic.items() if v != 100} == {}
    assert {"PQ", "SQ_th", "RQ_st", "PQ-cat", "SQ-sea"} < set(panoptic)
    assert results["bbox"]["AP"] == results["segm"]["AP"] == pytest.approx(100)
    assert results["sem_seg"]["mIoU"] == pytest.approx(100)


# The cat of image 1 is found but for 6 of its 30 rows; its dog is classified as a cat; the rest is correct.
FLAWED = {1: [(0, box(16, 10, 40, 40)), (0, box(60, 50, 90, 90))], 2: THINGS[2]}


def test_panoptic_quality_equals_the_formula(dataset):
    panoptic = evaluate(dataset, {k: output(things) for k, things in FLAWED.items()})["panoptic_seg"]
    # The sky of image 1: 5000 - 900 px, predicted with the 180 px that the cat lacks.
    cat_iou, sky_iou = [24 / 30, 1.0], [4100 / 4280, 1.0]
    truth = {
        "cat": sum(cat_iou) / (2 + 0.5 * 1),
        "dog": 0.0,
        "sky": sum(sky_iou) / 2,
        "sea": 1.0,
    }
    for name, value in truth.items():
        assert panoptic[f"PQ-{name}"] == pytest.approx(100 * value, abs=1e-9), name
    assert panoptic["SQ-cat"] == pytest.approx(90)
    assert panoptic["RQ-cat"] == pytest.approx(100 * 2 / 2.5)
    assert panoptic["PQ"] == pytest.approx(25 * sum(truth.values()))
    assert panoptic["PQ_th"] == pytest.approx(50 * (truth["cat"] + truth["dog"]))
    assert panoptic["PQ_st"] == pytest.approx(50 * (truth["sky"] + truth["sea"]))


def test_average_precision_equals_pycocotools_on_the_masks(dataset):
    predictions = {k: output(things, scores=[0.9, 0.8][: len(things)]) for k, things in FLAWED.items()}
    results = evaluate(dataset, predictions)
    truth = COCO(str(dataset / "out/instances.json"))
    detections = json.loads((dataset / "out/coco_instances_results.json").read_text())
    for kind in ("bbox", "segm"):
        found = [{k: v for k, v in d.items() if kind == "bbox" or k != "bbox"} for d in detections]
        coco_eval = COCOeval(truth, truth.loadRes(found), kind)
        coco_eval.evaluate()
        coco_eval.accumulate()
        coco_eval.summarize()
        assert 0 < coco_eval.stats[0] < 1
        assert results[kind]["AP"] == pytest.approx(100 * coco_eval.stats[0])


@pytest.mark.parametrize("detections,found", [(100, False), (120, True)])
def test_as_many_detections_count_as_the_model_gives(dataset, detections, found):
    """The cat of image 2 is the last of 111, by its score."""
    false = [(0, box(70, k % 90, 72, k % 90 + 2)) for k in range(110)]
    predictions = {1: output(THINGS[1]), 2: output([*false, *THINGS[2]], scores=[0.9] * 110 + [0.1])}
    results = evaluate(dataset, predictions, detections=detections)
    # Two cats: one at once, the other after 110 false ones, or never. 51 of 101 recalls are below one half.
    expected = (51 + (50 * 2 / 112 if found else 0)) / 101
    for task in ("bbox", "segm"):
        assert results[task]["AP-cat"] == pytest.approx(100 * expected)
    cfg = get_cfg()
    add_crbp_config(cfg)
    cfg.TEST.STEPS_TO_EVALUATE, cfg.TEST.DETECTIONS_PER_IMAGE = (1, 2), detections
    precision = build_panoptic_evaluator(cfg, "eval_set", str(dataset / "out")).by_step[1]
    instances = predictions[2]["instances"]
    scores, classes = instances.scores, instances.pred_classes
    pasted = [(mask.numpy()[None].repeat(2, axis=0), (slice(0, SIZE), slice(0, SIZE))) for mask in instances.pred_masks]
    steps = SimpleNamespace(instances=Instances((SIZE, SIZE), scores=scores, pred_classes=classes), pasted=pasted)
    precision.add(2, steps)
    # AP of the only cat: image 1 has no detection here.
    assert (precision.results(precision.found)["AP"][0] > 0) == found


def test_a_failed_picture_does_not_end_an_evaluation(dataset, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("crbp_d2"), "propagate", True)
    monkeypatch.setattr("crbp_d2.evaluation.drawing.draw_segments", lambda *_: 1 / 0)
    results = evaluate(dataset, {k: output(things) for k, things in THINGS.items()}, pictures=1)
    assert results["panoptic_seg"]["PQ"] == 100
    assert [message for message in caplog.messages if "Image 1" in message and "division" in message]


def test_mean_iou_equals_the_formula(dataset):
    results = evaluate(dataset, {k: output(things) for k, things in FLAWED.items()})
    # Image 1 calls 180 of the 900 + 1200 + 1600 px of things sky; 4100 + 3800 px are sky.
    things = (3700 - 180) / 3700
    sky = 7900 / (7900 + 180)
    assert results["sem_seg"]["mIoU"] == pytest.approx(100 * (things + sky + 1) / 3)


def test_empty_predictions_have_a_quality_of_zero(dataset):
    results = evaluate(dataset, {k: output([], stuff=()) for k in THINGS})
    assert results["panoptic_seg"]["PQ"] == 0 and not results["segm"]["AP"] > 0


def test_a_missing_image_is_named(dataset):
    with pytest.raises(ValueError, match="panoptic.json have no .* instance 2"):
        evaluate(dataset, {1: output(THINGS[1])})


def test_an_evaluation_leaves_the_catalog_and_can_be_repeated(dataset):
    before = MetadataCatalog.get("eval_set").as_dict()
    first, second = (evaluate(dataset, {k: output(things) for k, things in FLAWED.items()}) for _ in range(2))
    # As text, since the AP of sizes that do not occur is NaN.
    assert repr(second) == repr(first)
    assert MetadataCatalog.get("eval_set").as_dict() == before


def test_pictures_show_truth_and_prediction(dataset):
    evaluate(dataset, {k: output(things) for k, things in FLAWED.items()}, pictures=1)
    (path,) = (dataset / "out/pictures").iterdir()
    picture = cv2.imread(str(path))[..., ::-1].astype(int)
    height, width = picture.shape[:2]
    assert width == 3 * 480 and 480 < height < 540
    top = height - 480

    def color(panel, y, x):
        """Mean around a point of the scene, its classes' colours laid over the grey image."""
        y, x = top + round(4.8 * y), 480 * panel + round(4.8 * x)
        return picture[y - 3 : y + 4, x - 3 : x + 4].mean(axis=(0, 1))

    assert np.abs(color(0, 85, 70) - 128).max() < 3
    dog_in_truth, cat_in_prediction = color(1, 64, 54), color(2, 64, 54)
    assert dog_in_truth[1] > dog_in_truth[0] + 60
    assert cat_in_prediction[0] > cat_in_prediction[1] + 60


def test_table_and_file_have_every_metric_once(tmp_path):
    results = {
        "panoptic_seg": {"PQ": 41.5, "SQ": 80.25, "RQ": 50.0, "PQ_th": 48.47, "PQ_st": 31.32},
        "bbox": {"AP": 40.251},
        "segm": {"AP": math.nan},
    }
    header, _, row = results_table(results, "mine").splitlines()
    cells = dict(zip([c.strip() for c in header.split("|")], [c.strip() for c in row.split("|")], strict=True))
    assert cells["PQ"] == "41.50" and cells["PQ things"] == "48.47" and cells["PQ stuff"] == "31.32"
    assert cells["box AP"] == "40.25" and cells["mask AP"] == "-" and cells["mIoU"] == "-"
    stored = json.loads(Path(write_results(results, str(tmp_path))).read_text(), parse_constant=pytest.fail)
    assert stored["segm"]["AP"] is None
    assert stored["panoptic_seg"] == results["panoptic_seg"]
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]
