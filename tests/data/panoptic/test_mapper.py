"""The mapper: instances and semantic map stay with the image."""

import copy

import cv2
import numpy as np
import pytest
from detectron2.data import DatasetCatalog
from detectron2.data import transforms as T
from helpers.panoptic_set import HEIGHT, WIDTH, expected_semantic, ids_map, register

from crbp_d2.data import PanopticDatasetMapper


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
    np.random.seed(0)  # noqa: NPY002  (detectron2 draws from the global generator)
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


def test_labels_without_a_class_are_named(root):
    register(root)
    record = DatasetCatalog.get("tiny")[0]
    mapper(semantic_classes=3)(record)
    with pytest.raises(ValueError, match=r"004\.png has the label 2; .* 0 to 1"):
        mapper(semantic_classes=2)(record)


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
