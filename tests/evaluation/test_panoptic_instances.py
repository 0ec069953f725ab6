"""Box and mask AP of panoptic sets: ids of any kind, and instances JSONs that belong to the set or do not."""

import json

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.evaluation import DatasetEvaluator
from helpers.unusual_set import config, perfect, scene, write

from crbp_d2.data import PanopticDatasetMapper, register_panoptic, write_instances_json
from crbp_d2.evaluation import build_panoptic_evaluator
from crbp_d2.evaluation.instances import IfPredicted, former_numpy
from tools.data_sets import free


@pytest.fixture(autouse=True)
def names_are_freed():
    yield
    free("odd", "odd_as_files")


def cats_for_all(record):
    """The output of a model that knows the ground truth, but takes every thing for a cat."""
    mapped = PanopticDatasetMapper(is_train=True, augmentations=[], image_format="BGR")(record)
    truth = mapped["instances"]
    instances = type(truth)(truth.image_size, pred_boxes=truth.gt_boxes, pred_masks=truth.gt_masks.tensor,
                            pred_classes=truth.gt_classes * 0, scores=torch.ones(len(truth)))  # fmt: skip
    semantic = torch.nn.functional.one_hot(mapped["sem_seg"].clamp(max=2), 3).permute(2, 0, 1)
    return {**perfect(record), "instances": instances, "sem_seg": semantic}


def figures(root):
    evaluator = build_panoptic_evaluator(config(root, "TEST.PICTURES", 0), "odd", str(root / "out"))
    evaluator.reset()
    for record in DatasetCatalog.get("odd"):
        evaluator.process([record], [cats_for_all(record)])
    return evaluator.evaluate()


NUMBERS = (9, 10, 11, 12)


@pytest.mark.parametrize(
    "ids,image_ids",
    [
        (("9", "10", "11", "12"), None),  # pycocotools would sort "10" before "9"
        ((9, "10", 11, "x"), None),
        ((0, 1, 2, 3), (0, 1)),
        ((-1, 0, 2, 3), (-5, 0)),
        ((2**40, 2**40 + 1, 2**40 + 2, 2**40 + 3), (2**70, 2**40)),
        (NUMBERS, ("a", "7")),
        (NUMBERS, (3, "a")),
        (("9", 10, "11", 12), ("3", 4)),
    ],
)
def test_ids_of_any_kind_give_the_figures_of_numbers(tmp_path, ids, image_ids):
    found = []
    for k, settings in enumerate(({"ids": NUMBERS}, {"ids": ids, "image_ids": image_ids})):
        root = tmp_path / str(k)
        root.mkdir()
        write(root, [scene(), scene(40, 72)], **settings)
        found.append(figures(root))
        free("odd")
    assert repr(found[0]) == repr(found[1])
    assert found[0]["segm"]["AP-cat"] > 0 == found[0]["segm"]["AP-dog"]


@pytest.fixture
def with_instances(tmp_path):
    """Registers a set with instances of its own, which a change has been made to."""

    def register(change):
        write(tmp_path, [scene(), scene(40, 72)])
        path = tmp_path / "instances.json"
        write_instances_json("odd", str(path))
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))
        free("odd")
        files = (tmp_path / name for name in ("panoptic.json", "panoptic", "images"))
        register_panoptic("odd", *map(str, files), instances_json=str(path))
        return path

    return register


def test_instances_of_more_images_count_for_the_panoptic_ones(tmp_path, with_instances):
    def add_an_image(content):
        content["images"].append({**content["images"][0], "id": 77})
        content["annotations"].append({**content["annotations"][0], "id": 99, "image_id": 77})

    with_instances(lambda content: None)
    expected = figures(tmp_path)
    free("odd")
    with_instances(add_an_image)
    assert repr(figures(tmp_path)) == repr(expected)


@pytest.mark.parametrize(
    "change,key",
    [
        (lambda d: d["categories"][0].update(name="horse"), "categories[].id"),
        (lambda d: d["categories"].reverse() or d["categories"].pop(), "category_id"),
        (lambda d: d["images"].pop(), "image_id"),
        (lambda d: d["annotations"][0].pop("segmentation"), "annotations[].segmentation"),
        (lambda d: d["annotations"][0].update(segmentation={"size": [1, 1], "counts": "11"}), "segmentation"),
        (lambda d: d.pop("annotations"), "annotations"),
    ],
)
def test_instances_that_do_not_belong_to_the_set_are_named(tmp_path, with_instances, change, key):
    path = with_instances(change)
    with pytest.raises(ValueError) as raised:
        figures(tmp_path)
    assert str(path) in str(raised.value) and key in str(raised.value) and "\n" not in str(raised.value)


def test_instances_that_are_not_there_are_named(tmp_path):
    write(tmp_path, [scene()])
    with pytest.raises(FileNotFoundError, match="instances_json.*nowhere.json"):
        register_panoptic("odd", str(tmp_path / "panoptic.json"), "", "", instances_json="nowhere.json")


class Counting(DatasetEvaluator):
    def reset(self):
        self.seen = []

    def process(self, inputs, outputs):
        self.seen += inputs

    def evaluate(self):
        return {"seen": self.seen}


def test_an_evaluator_sees_the_outputs_that_have_its_key():
    evaluator = IfPredicted("instances", Counting())
    evaluator.reset()
    evaluator.process([1, 2, 3], [{"instances": 0}, {"sem_seg": 0}, {"instances": 0}])
    assert evaluator.evaluate() == {"seen": [1, 3]}
    evaluator.reset()
    evaluator.process([1], [{"sem_seg": 0}])
    assert evaluator.evaluate() == {}
    # No image at all: the evaluator's own result counts.
    evaluator.reset()
    assert evaluator.evaluate() == {"seen": []}


def test_former_names_of_numpy_are_restored():
    before = {name: vars(np).get(name) for name in ("float", "in1d")}
    assert before["float"] is None
    with former_numpy():
        assert vars(np)["float"] is float
        assert vars(np)["in1d"](np.array([[1, 2], [3, 4]]), [2, 4]).tolist() == [False, True, False, True]
    assert {name: vars(np).get(name) for name in before} == before
