"""Files of predictions: ids by path, names, strict JSON; outputs that spare the inputs."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import Metadata
from detectron2.structures import Boxes, Instances

from crbp_d2.predict.files import PredictionFiles, read_image_info
from crbp_d2.predict.pictures import find_inputs, output_folder


def image_info(folder, *images):
    path = folder / "info.json"
    path.write_text(json.dumps({"images": list(images)}))
    return str(path)


def semantic(classes, label, size=(4, 6)):
    logits = torch.zeros(classes, *size)
    logits[label] = 1
    return {"sem_seg": logits}


def test_ids_are_matched_by_the_end_of_the_path(tmp_path, monkeypatch):
    names = ("north/0.png", "south/0.png", "0.png")
    info = image_info(tmp_path, *({"id": 7 + k, "file_name": name} for k, name in enumerate(names)))
    files = PredictionFiles(str(tmp_path), Metadata(), info)
    assert files.image_id("/data/test/north/0.png") == 7 and files.image_id("x/south/0.png") == 8
    assert files.image_id("west/0.png") == 9
    monkeypatch.chdir(tmp_path)
    Path("south").mkdir()
    monkeypatch.chdir("south")
    assert files.image_id("0.png") == 8
    for unknown in ("north/1.png", "north0.png"):
        with pytest.raises(ValueError, match=unknown):
            files.image_id(unknown)
    files.add("west/0.png", "0", semantic(3, 1), (4, 6))
    with pytest.raises(ValueError, match="east/0.png and west/0.png"):
        files.image_id("east/0.png")


@pytest.mark.parametrize(
    "images,expected",
    [
        (({"id": 1, "file_name": "a.png"}, {"id": 2}), "images.1."),
        (({"id": None, "file_name": "a.png"},), "images.0."),
        (({"id": 1.5, "file_name": "a.png"},), "images.0."),
        ((3,), "images.0."),
        (({"id": 1, "file_name": ""},), "images.0."),
        (({"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "./a.png"}), "images.1. repeats"),
        (({"id": 1, "file_name": "a.png"}, {"id": 1, "file_name": "b.png"}), "same id"),
    ],
)
def test_an_invalid_image_info_is_named(tmp_path, images, expected):
    path = image_info(tmp_path, *images)
    with pytest.raises(ValueError, match=expected) as raised:
        read_image_info(path)
    assert path in str(raised.value)


@pytest.mark.parametrize("content", ["[]", '{"images": 3}', '{"annotations": []}'])
def test_an_image_info_without_images_is_named(tmp_path, content):
    (tmp_path / "info.json").write_text(content)
    with pytest.raises(ValueError, match="info.json has no list of `images`"):
        read_image_info(str(tmp_path / "info.json"))


@pytest.mark.parametrize("classes,label,dtype", [(256, 255, np.uint8), (257, 256, np.uint16)])
def test_semantic_pngs_hold_every_class(tmp_path, classes, label, dtype):
    PredictionFiles(str(tmp_path), Metadata()).add("a.png", "a", semantic(classes, label), (4, 6))
    stored = cv2.imread(str(tmp_path / "semantic_predictions/a.png"), cv2.IMREAD_UNCHANGED)
    assert stored.dtype == dtype and (stored == label).all()


def test_frames_and_images_of_one_stem_have_files_of_their_own(tmp_path):
    files = PredictionFiles(str(tmp_path), Metadata())
    for k, path in enumerate(("clip_000001.png", "clip.mp4#1")):
        files.add(path, "clip_000001", semantic(3, k), (4, 6))
    stored = [cv2.imread(str(path), -1) for path in sorted((tmp_path / "semantic_predictions").iterdir())]
    assert [labels.max() for labels in stored] == [0, 1]


def test_the_json_is_strict(tmp_path):
    instances = Instances((4, 6), pred_boxes=Boxes(torch.tensor([[0.0, 0, 2, 2]])), scores=torch.tensor([torch.nan]),
                          pred_classes=torch.tensor([0]))  # fmt: skip
    files = PredictionFiles(str(tmp_path), Metadata())
    files.add("a.png", "a", {"instances": instances}, (4, 6))
    files.write()
    (listed,) = json.loads((tmp_path / "images.json").read_text())["images"]
    assert (listed["height"], listed["width"]) == (4, 6)
    text = (tmp_path / "coco_instances_results.json").read_text()
    (result,) = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert result["score"] is None and result["bbox"] == [0, 0, 2, 2]


@pytest.mark.parametrize(
    "name,json_too,refused",
    [
        ("own.png", False, True),
        ("panoptic_predictions/own.png", True, True),
        ("semantic_predictions/own.png", True, True),
        ("semantic_predictions/own.png", False, False),
        ("kept/own.png", True, False),
    ],
)
def test_outputs_never_overwrite_an_input(tmp_path, name, json_too, refused):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"")
    inputs = find_inputs([str(path)])
    if refused:
        with pytest.raises(ValueError, match="would overwrite the input"):
            output_folder(str(tmp_path), inputs, json_too)
    else:
        assert output_folder(str(tmp_path), inputs, json_too) == tmp_path


def test_outputs_never_overwrite_the_image_info(tmp_path):
    with pytest.raises(ValueError, match="overwrite the input.*images.json"):
        output_folder(str(tmp_path), [], True, str(tmp_path / "images.json"))
