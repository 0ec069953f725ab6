"""Data that is right but unusual trains and is evaluated: on a set written for each case, by the toy config."""

import json
import math
import os
import subprocess
import sys
import tracemalloc

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, Metadata
from helpers.unusual_set import config, perfect, scene, write
from PIL import Image

from crbp_d2.data import PanopticDatasetMapper
from crbp_d2.data.panoptic.mapper import ResizeToPixels
from crbp_d2.engine import Trainer
from crbp_d2.engine.loaders import build_test_loader
from crbp_d2.evaluation import PanopticEvaluator
from crbp_d2.evaluation.drawing import MOST_PIXELS, draw_segments
from tools.data_sets import free


@pytest.fixture(autouse=True)
def names_are_freed():
    yield
    free("odd", "odd_as_files")


def train_and_evaluate(root, *options):
    """Two iterations and an evaluation; the results. A loss that is not finite stops a training."""
    cfg = config(root, *options)
    (root / "out").mkdir()
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    assert all(p.isfinite().all() for p in trainer.model.parameters())
    return json.loads((root / "out/inference/odd/results.json").read_text())


def quality_of_the_truth():
    evaluator = PanopticEvaluator("odd")
    for record in DatasetCatalog.get("odd"):
        evaluator.process([record], [perfect(record)])
    return evaluator.evaluate()["panoptic_seg"]


CASES = {
    "ids from 0": {"ids": (0, 1, 2, 3)},
    "stuff of id 0": {"ids": (3, 2, 1, 0)},
    "category ids as strings": {"ids": ("10", "9", "c", "0")},
    "image ids as strings": {"image_ids": ("a", "7")},
    "equal names in sub-folders": {"names": ("a/0.png", "b/0.png")},
    "non-ASCII names": {"names": ("Straße.png", "日本/猫.png")},
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_unusual_ids_and_names(tmp_path, case):
    write(tmp_path, [scene(), scene(40, 72)], **CASES[case])
    assert quality_of_the_truth()["PQ"] == pytest.approx(100)
    results = train_and_evaluate(tmp_path)
    assert {"panoptic_seg", "bbox", "segm", "sem_seg"} <= set(results)
    assert len(list((tmp_path / "out/inference/odd/pictures").iterdir())) == 2


@pytest.mark.slow
@pytest.mark.parametrize("kinds,there,absent", [((1, 1, None, None), "_th", "_st"), ((None, None, 0, 0), "_st", "_th")])
def test_only_things_or_only_stuff(tmp_path, kinds, there, absent):
    def of_kind(segments, classes):
        kept = {s: c for s, c in classes.items() if kinds[c] is not None}
        return np.where(np.isin(segments, list(kept)), segments, 0), kept

    write(tmp_path, [of_kind(*scene()), of_kind(*scene(40, 72))], kinds=kinds)
    quality = quality_of_the_truth()
    assert quality["PQ"] == quality[f"PQ{there}"] == pytest.approx(100) and math.isnan(quality[f"PQ{absent}"])
    results = train_and_evaluate(tmp_path)
    assert math.isfinite(results["panoptic_seg"][f"PQ{there}"])
    assert results["panoptic_seg"][f"PQ{absent}"] is None


@pytest.mark.slow
def test_a_batch_without_segments(tmp_path):
    empty = np.zeros((48, 64), int)
    write(tmp_path, [(empty, {}), (empty, {})])
    results = train_and_evaluate(tmp_path)
    assert not results["panoptic_seg"]["PQ"]


@pytest.mark.slow
@pytest.mark.parametrize("size", [(200, 1), (1, 300), (24, 3600)])
def test_long_images_and_the_size_of_their_pictures(tmp_path, size):
    height, width = size
    segments = np.full(size, 3)
    segments[: height // 2 + 1, : width // 2 + 1] = 1
    write(tmp_path, [(segments, {1: 0, 3: 2})] * 2)
    results = train_and_evaluate(tmp_path, "INPUT.MAX_SIZE_TEST", 400, "INPUT.MAX_SIZE_TRAIN", 128)
    assert "panoptic_seg" in results
    for path in (tmp_path / "out/inference/odd/pictures").iterdir():
        picture = cv2.imread(str(path))
        assert max(picture.shape[0], picture.shape[1] / 3) <= MOST_PIXELS + 40


@pytest.mark.parametrize("size", [(200, 1), (1, 5000), (24, 3600)])
def test_drawing_a_long_image_takes_little_memory(size):
    metadata = Metadata(name="long", thing_classes=["cat"], thing_colors=[[1, 2, 3]])
    segments = [{"id": 1, "isthing": True, "category_id": 0}]
    tracemalloc.start()
    try:
        picture = draw_segments(np.zeros((*size, 3), np.uint8), np.ones(size, int), segments, metadata)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Of arrays; one panel of 480 x 72,000 px would have 100 MB.
    assert max(picture.shape[:2]) <= MOST_PIXELS and peak < 2**24


def test_a_pixel_of_the_shorter_side_is_left():
    image = np.zeros((1, 2000, 3), np.uint8)
    assert ResizeToPixels(800, 100).get_transform(image).apply_image(image).shape == (1, 100, 3)


@pytest.mark.parametrize("count", [360, 2000])
def test_many_instances(tmp_path, count):
    height, width = 100, 200
    segments = 1 + np.arange(height * width).reshape(height, width) % 200 // 4 + 50 * (np.arange(height)[:, None] // 2)
    segments[segments > count] = 0
    write(tmp_path, [(segments, {k: k % 2 for k in range(1, count + 1)})])
    (record,) = DatasetCatalog.get("odd")
    cfg = config(tmp_path)
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN = (200,), 400
    cfg.INPUT.RANDOM_FLIP = "none"
    instances = PanopticDatasetMapper(cfg, is_train=True)(record)["instances"]
    assert len(instances) == count
    # Twice as large: each of 4 x 2 px has 8 x 4.
    assert instances.gt_masks.tensor.sum(dim=(1, 2)).tolist() == [32] * count
    assert instances.gt_classes.tolist() == [k % 2 for k in range(1, count + 1)]
    assert quality_of_the_truth()["PQ_th"] == pytest.approx(100)


@pytest.mark.parametrize("mode", ["P", "RGBA"])
def test_palette_and_rgba_pngs_are_read_alike(tmp_path, mode):
    write(tmp_path, [scene()])
    (record,) = DatasetCatalog.get("odd")
    mapper = PanopticDatasetMapper(is_train=True, augmentations=[], image_format="BGR")
    before = mapper(record)
    image = Image.open(record["pan_seg_file_name"])
    (image.quantize() if mode == "P" else image.convert(mode)).save(record["pan_seg_file_name"])
    with Image.open(record["pan_seg_file_name"]) as written:
        assert written.mode == mode
    after = mapper(record)
    assert torch.equal(before["sem_seg"], after["sem_seg"])
    assert torch.equal(before["instances"].gt_masks.tensor, after["instances"].gt_masks.tensor)
    assert quality_of_the_truth()["PQ"] == pytest.approx(100)


@pytest.mark.parametrize("orientation,turn", [(3, 2), (6, 3), (8, 1)])
def test_an_image_that_exif_turns_is_seen_as_its_png(tmp_path, orientation, turn):
    """`turn`: quarter turns to the left by this orientation."""
    write(tmp_path, [scene()])
    (record,) = DatasetCatalog.get("odd")
    expected = PanopticDatasetMapper(is_train=True, augmentations=[], image_format="BGR")(record)
    with Image.open(record["file_name"]) as image:
        stored, exif = np.rot90(np.array(image), -turn), image.getexif()
    exif[274] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(record["file_name"], exif=exif)
    found = PanopticDatasetMapper(is_train=True, augmentations=[], image_format="BGR")(record)
    assert torch.equal(found["image"], expected["image"]) and torch.equal(found["sem_seg"], expected["sem_seg"])
    assert quality_of_the_truth()["PQ"] == pytest.approx(100)


@pytest.mark.slow
@pytest.mark.parametrize("locale", [{"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {}])
def test_non_ascii_names_under_any_locale(tmp_path, locale):
    write(tmp_path, [scene()], names=("日本/Straße.png",))
    program = """
import sys
from detectron2.data import DatasetCatalog
from crbp_d2.data import PanopticDatasetMapper, register_panoptic, check_panoptic_dataset
from crbp_d2.cli.check_dataset import main
paths = [sys.argv[1] + "/" + name for name in ("panoptic.json", "panoptic", "images")]
register_panoptic("odd", *paths)
sample = PanopticDatasetMapper(is_train=True, augmentations=[], image_format="BGR")(DatasetCatalog.get("odd")[0])
assert len(sample["instances"]) == 2
assert check_panoptic_dataset(*paths) == []
(open(sys.argv[1] + "/panoptic.json", "a")).write("x")
sys.exit(main(["--panoptic-json", paths[0], "--panoptic-root", paths[1], "--image-root", paths[2]]))
"""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG"))} | locale
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], env=environment, capture_output=True)
    assert done.returncode == 1, done.stderr.decode()[-2000:]
    assert b"panoptic.json" in done.stdout


def test_pairs_are_found_by_id(tmp_path):
    """The same file name in two folders, with other content: what is predicted for one counts for that one."""
    first, second = scene(), scene(40, 72)
    write(tmp_path, [first, (second[0], {1: 1, 2: 0, 3: 3, 4: 2})], names=("a/0.png", "b/0.png"), image_ids=(7, 0))
    assert quality_of_the_truth()["PQ"] == pytest.approx(100)
    loader = build_test_loader(config(tmp_path), "odd")
    assert sorted(batch[0]["image_id"] for batch in loader) == [0, 7]
