"""PanopticEvaluator against panopticapi's pq_compute, and cases outside its scope."""

import contextlib
import io
import json
import math
import sys

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from helpers.panoptic_set import HEIGHT, SEGMENTS, WIDTH, ids_map, register, write_set

from crbp_d2.evaluation import PanopticEvaluator
from crbp_d2.evaluation.panoptic import match


@pytest.fixture
def root(tmp_path):
    write_set(tmp_path)
    register(tmp_path)
    yield tmp_path
    DatasetCatalog.remove("tiny")
    MetadataCatalog.remove("tiny")


def random_prediction(seed):
    """The truth with blocks of pixels moved to other segments, some of a wrong class, some void."""
    rng = np.random.default_rng(seed)
    kinds = {300: (False, 2), 70000: (False, 1), 7: (True, 0), 65536 * 3: (True, 1), 513: (True, 0)}
    ids = ids_map()
    for _ in range(4):
        y, x = rng.integers(0, HEIGHT - 8), rng.integers(0, WIDTH - 12)
        ids[y : y + 8, x : x + 12] = rng.choice([0, *SEGMENTS, 99])
    segments = []
    for label in np.unique(ids[ids > 0]).tolist():
        isthing, k = kinds.get(label, (True, 1))
        segments.append({"id": label, "isthing": isthing, "category_id": k if rng.uniform() < 0.8 else 1})
    return {"panoptic_seg": (torch.from_numpy(ids), segments)}


def evaluate(predictions, folder):
    evaluator = PanopticEvaluator("tiny", str(folder))
    evaluator.process([{"image_id": image_id} for image_id in predictions], list(predictions.values()))
    return evaluator.evaluate()["panoptic_seg"]


@pytest.mark.parametrize("seed", range(6))
def test_metrics_and_files_are_those_of_panopticapi(root, seed):
    pq_compute = pytest.importorskip("panopticapi.evaluation", reason="needs panopticapi").pq_compute_single_core
    found = evaluate({image_id: random_prediction(10 * seed + image_id) for image_id in (4, 2)}, root / "out")
    truth = json.loads((root / "panoptic.json").read_text())
    predicted = json.loads((root / "out/panoptic_predictions.json").read_text())
    categories = {c["id"]: c for c in truth["categories"]}
    pairs = list(zip(truth["annotations"], predicted["annotations"], strict=True))
    folders = str(root / "panoptic"), str(root / "out/panoptic_predictions")
    with contextlib.redirect_stdout(io.StringIO()):
        statistics = pq_compute(0, pairs, *folders, categories)
    for suffix, isthing in (("", None), ("_th", True), ("_st", False)):
        expected, per_class = statistics.pq_average(categories, isthing)
        for measure in ("PQ", "SQ", "RQ"):
            assert found[measure + suffix] == pytest.approx(100 * expected[measure.lower()], abs=1e-9)
    assert 0 < found["PQ"] < 100
    for category in categories.values():
        counted = statistics[category["id"]]
        if counted.tp + counted.fp + counted.fn:
            iou, halves = counted.iou, counted.tp + 0.5 * (counted.fp + counted.fn)
            assert found[f"PQ-{category['name']}"] == pytest.approx(100 * iou / halves, abs=1e-9)


def test_nothing_is_missing_without_panopticapi(root, monkeypatch):
    predictions = {image_id: random_prediction(image_id) for image_id in (4, 2)}
    expected = evaluate(predictions, root / "out")
    for name in [name for name in sys.modules if name.partition(".")[0] == "panopticapi"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "panopticapi", None)  # importing it raises
    assert evaluate(predictions, root / "without") == expected and 0 < expected["PQ"] < 100


def test_the_areas_of_the_json_do_not_matter(root):
    prediction = {image_id: random_prediction(image_id) for image_id in (4, 2)}
    before = evaluate(prediction, root / "out")
    data = json.loads((root / "panoptic.json").read_text())
    for annotation in data["annotations"]:
        for segment in annotation["segments_info"]:
            segment["area"] //= 5
            del segment["bbox"]
    (root / "panoptic.json").write_text(json.dumps(data))
    assert evaluate(prediction, root / "out") == before


def test_a_group_without_classes_has_no_metric(root):
    only_stuff = {}
    data = json.loads((root / "panoptic.json").read_text())
    for annotation in data["annotations"]:
        # What was a thing becomes sea.
        for segment in annotation["segments_info"]:
            segment.update(category_id=30 if segment["category_id"] == 30 else 21, iscrowd=0)
        ids = ids_map()
        if annotation["image_id"] == 2:
            ids[np.isin(ids, (7, 65536 * 3, 513))] = 70000
        segments = [
            {"id": s["id"], "isthing": False, "category_id": 2 if s["category_id"] == 30 else 1}
            for s in annotation["segments_info"]
        ]
        only_stuff[annotation["image_id"]] = {"panoptic_seg": (torch.from_numpy(ids), segments)}
    (root / "panoptic.json").write_text(json.dumps(data))
    found = evaluate(only_stuff, root / "out")
    assert found["PQ"] == found["PQ_st"] == 100 and math.isnan(found["PQ_th"]) and "PQ-cat" not in found


def test_predictions_that_fit_nothing_are_named(root):
    evaluator = PanopticEvaluator("tiny")
    prediction = random_prediction(0)
    with pytest.raises(ValueError, match="no annotation of image 7"):
        evaluator.process([{"image_id": 7}], [prediction])
    small = {"panoptic_seg": (prediction["panoptic_seg"][0][1:], prediction["panoptic_seg"][1])}
    with pytest.raises(ValueError, match=r"image 4 is \(39, 60\).* \(40, 60\)"):
        evaluator.process([{"image_id": 4}], [small])


def test_labels_of_class_and_instance_are_taken(root):
    ids, _ = random_prediction(0)["panoptic_seg"]
    # 1 dog is instance 3 of class 1; the rest is void.
    labels = torch.where(ids == 65536 * 3, 1003, -1)
    encoded = {image_id: {"panoptic_seg": (labels, None)} for image_id in (4, 2)}
    listed = torch.where(labels > 0, 5, 0)
    segments = [{"id": 5, "isthing": True, "category_id": 1}]
    plain = {image_id: {"panoptic_seg": (listed, segments)} for image_id in (4, 2)}
    assert repr(evaluate(encoded, root / "a")) == repr(evaluate(plain, root / "b"))


@pytest.mark.parametrize("rows,void,matched", [(20, 0, False), (21, 0, True), (21, 10, True)])
def test_an_iou_of_exactly_one_half_is_no_match(rows, void, matched):
    """A true segment of 40 pixels, found in 20 or 21 of them; void pixels do not count in the union."""
    true = [{"isthing": True, "category_id": 0, "iscrowd": False}]
    overlaps = np.array([[[void, rows]]])
    (counts,) = match(overlaps, [(True, 0)], true, np.array([40])).values()
    expected = [rows / 40, 1, 0, 0] if matched else [0, 0, 1, 1]
    assert counts.tolist() == [pytest.approx(expected)]


@pytest.mark.parametrize("void,false", [(6, 0), (5, 1)])
def test_more_than_half_in_the_void_is_ignored(void, false):
    """10 predicted pixels without a match: exactly one half in the void is a false positive, as in panopticapi."""
    other = [{"isthing": False, "category_id": 1, "iscrowd": False}]
    counts = match(np.array([[[void, 10 - void]]]), [(True, 0)], other, np.array([100]))
    assert counts[True, 0].tolist() == [[0, 0, false, 0]] and counts[False, 1].tolist() == [[0, 0, 0, 1]]
