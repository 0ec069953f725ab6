"""Toy scenes: deterministic, consistent, written whole or not at all."""

import json

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from panopticapi.utils import rgb2id
from PIL import Image

from crbp_d2.data import register_toy_panoptic, semantic_map
from crbp_d2.data.panoptic import toy as module
from crbp_d2.data.panoptic.toy import MIN_VISIBLE, STUFF, THINGS, draw_scene
from tools.data_sets import free

NAMES = "toy_panoptic_train", "toy_panoptic_val", "toy_panoptic_hard_train", "toy_panoptic_hard_val"


@pytest.fixture(autouse=True)
def names_are_free():
    free(*NAMES)
    yield
    free(*NAMES)


def test_hard_scenes_have_more_and_thinner_shapes():
    kinds = [[draw_scene((4, 0, k), hard=hard) for k in range(40)] for hard in (False, True)]
    things = [[sum(name in THINGS for name in scene.classes) for scene in scenes] for scenes in kinds]
    areas = [
        np.median([(s.segments == k).sum() for s in scenes for k, c in enumerate(s.classes, 1) if c in THINGS])
        for scenes in kinds
    ]
    assert np.mean(things[1]) > 2 * np.mean(things[0]) and areas[1] < 0.6 * areas[0]
    assert set().union(*(scene.classes for scene in kinds[1])) == {*THINGS, *STUFF}
    assert np.array_equal(draw_scene((4, 0, 3), hard=True).image, kinds[1][3].image)


def test_hard_scenes_are_a_data_set_of_their_own(tmp_path):
    register_toy_panoptic(str(tmp_path), num_train=2, num_val=2, size=64)
    register_toy_panoptic(str(tmp_path), num_train=2, num_val=2, size=64, hard=True)
    easy, hard = (DatasetCatalog.get(f"toy_panoptic{kind}_val") for kind in ("", "_hard"))
    assert len(easy) == len(hard) == 2 and easy[0]["file_name"] != hard[0]["file_name"]


def test_scenes_depend_on_their_seed_alone():
    a, b, c = draw_scene((0, 0, 5)), draw_scene((0, 0, 5)), draw_scene((0, 0, 6))
    assert np.array_equal(a.image, b.image) and np.array_equal(a.segments, b.segments) and a.classes == b.classes
    assert not np.array_equal(a.segments, c.segments)


@pytest.mark.parametrize("size", [64, 128])
def test_every_segment_is_visible_and_every_class_occurs(size):
    seen, occluded = set(), 0
    for index in range(60):
        scene = draw_scene((3, 0, index), size)
        areas = np.bincount(scene.segments.ravel(), minlength=len(scene.classes) + 1)[1:]
        assert len(areas) == len(scene.classes) and areas.min() >= MIN_VISIBLE
        assert np.mean(scene.segments == 0) < 0.02
        assert 2 <= sum(name in STUFF for name in scene.classes) <= 3
        seen |= set(scene.classes)
        # A disc inside the image covers pi/4 of its box unless something hides it.
        for k, name in enumerate(scene.classes, start=1):
            rows, columns = np.nonzero(scene.segments == k)
            inside = rows.min() > 0 and rows.max() < size - 1 and columns.min() > 0 and columns.max() < size - 1
            fill = len(rows) / ((np.ptp(rows) + 1) * (np.ptp(columns) + 1))
            if name == "disc" and inside and fill < 0.7:
                occluded += 1
    assert seen == {*THINGS, *STUFF}
    assert occluded > 0


def test_files_are_the_scenes_and_are_written_once(tmp_path):
    register_toy_panoptic(str(tmp_path), num_train=3, num_val=2)
    assert not list(tmp_path.iterdir())
    records = DatasetCatalog.get("toy_panoptic_train")
    assert len(records) == 3
    for index, record in enumerate(records):
        scene = draw_scene((0, 0, index))
        assert np.array_equal(np.array(Image.open(record["file_name"])), scene.image)
        assert np.array_equal(rgb2id(np.array(Image.open(record["pan_seg_file_name"]))), scene.segments)
        names = MetadataCatalog.get("toy_panoptic_train").stuff_classes
        semantic = semantic_map(record)
        for k, name in enumerate(scene.classes, start=1):
            assert set(semantic[scene.segments == k]) == {names.index(name) if name in STUFF else 0}
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    DatasetCatalog.get("toy_panoptic_train")
    assert written == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}


def test_more_images_begin_with_the_same_and_splits_differ(tmp_path):
    module.write_toy_panoptic(tmp_path / "few", "train", 2, 64, 0)
    module.write_toy_panoptic(tmp_path / "many", "train", 3, 64, 0)
    module.write_toy_panoptic(tmp_path / "val", "val", 2, 64, 0)
    for kind in ("images", "panoptic"):
        few, many, val = ((tmp_path / f / kind / "000001.png").read_bytes() for f in ("few", "many", "val"))
        assert few == many != val


def test_a_kill_leaves_nothing_under_the_name(tmp_path, monkeypatch):
    folder = tmp_path / "toy"
    calls = []

    def fail_at_the_second(*args):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return draw_scene(*args)

    monkeypatch.setattr(module, "draw_scene", fail_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        module.write_toy_panoptic(folder, "train", 3, 64, 0)
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    module.write_toy_panoptic(folder, "train", 3, 64, 0)
    assert len(json.loads((folder / "panoptic.json").read_text())["images"]) == 3


def test_other_arguments_do_not_take_the_name(tmp_path):
    register_toy_panoptic(str(tmp_path), seed=0)
    register_toy_panoptic(str(tmp_path), seed=0)
    with pytest.raises(ValueError, match="'toy_panoptic_train' is taken"):
        register_toy_panoptic(str(tmp_path), seed=1)
    with pytest.raises(ValueError, match="size at least 64.*size=20"):
        register_toy_panoptic(str(tmp_path), size=20)
