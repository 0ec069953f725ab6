"""Data that is right but unusual trains and is evaluated: on a set written for each case, by the toy config."""

import json
import math
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from helpers.paths import ROOT
from PIL import Image

from crbp_d2 import add_crbp_config
from crbp_d2.data import PanopticDatasetMapper, register_panoptic
from crbp_d2.data.images import encode_ids
from crbp_d2.data.panoptic.mapper import ResizeToPixels
from crbp_d2.engine import Trainer
from crbp_d2.engine.loaders import build_test_loader
from crbp_d2.evaluation import PanopticEvaluator, build_panoptic_evaluator
from crbp_d2.evaluation.drawing import MOST_PIXELS

THINGS, STUFF = ("cat", "dog"), ("sky", "sea")


def write(root, images, *, ids=(1, 2, 3, 4), image_ids=None, kinds=(1, 1, 0, 0), names=None):
    """A set of images, each a map of segment ids and {segment id: index of the category}."""
    categories = [
        {"id": i, "name": name, "isthing": kind}
        for i, name, kind in zip(ids, (*THINGS, *STUFF), kinds, strict=True)
        if kind is not None
    ]
    data = {"images": [], "annotations": [], "categories": categories}
    rng = np.random.default_rng(0)
    for k, (segments, classes) in enumerate(images):
        height, width = segments.shape
        name = names[k] if names else f"{k}.png"
        image_id = image_ids[k] if image_ids else k
        for kind in ("images", "panoptic"):
            (root / kind / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 255, (height, width, 3)).astype(np.uint8)
        (root / "images" / name).write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
        (root / "panoptic" / name).write_bytes(encode_ids(segments))
        infos = []
        for segment_id, c in classes.items():
            mask = segments == segment_id
            infos.append({"id": segment_id, "category_id": ids[c], "iscrowd": 0, "area": int(mask.sum()),
                          "bbox": list(cv2.boundingRect(mask.astype(np.uint8)))})  # fmt: skip
        data["images"].append({"id": image_id, "file_name": name, "height": height, "width": width})
        data["annotations"].append({"image_id": image_id, "file_name": name, "segments_info": infos})
    (root / "panoptic.json").write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
    register_panoptic("odd", str(root / "panoptic.json"), str(root / "panoptic"), str(root / "images"))


def scene(height=48, width=64):
    """Sky above sea, a cat and a dog."""
    segments = np.full((height, width), 3)
    segments[height // 2 :] = 4
    segments[height // 4 : height // 2, : width // 3] = 1
    segments[height // 2 : -4, width // 2 :] = 2
    return segments, {1: 0, 2: 1, 3: 2, 4: 3}


@pytest.fixture(autouse=True)
def names_are_freed():
    yield
    for name in ("odd", "odd_as_files"):
        if name in DatasetCatalog.list():
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)


def config(root, *options):
    cfg = get_cfg()
    add_crbp_config(cfg)
    cfg.merge_from_file(str(ROOT / "configs/quick/panoptic_R18_crbp_toy.yaml"))
    metadata = MetadataCatalog.get("odd")
    cfg.merge_from_list([
        "MODEL.DEVICE", "cpu", "DATALOADER.NUM_WORKERS", 0, "DATASETS.TRAIN", "('odd',)", "DATASETS.TEST", "('odd',)",
        "OUTPUT_DIR", str(root / "out"), "SOLVER.MAX_ITER", 2, "SOLVER.IMS_PER_BATCH", 2, "TEST.PICTURES", 2,
        "MODEL.RECURRENCE.STEPS", 2, "MODEL.RECURRENCE.NEUMANN.TERMS", 2,
        "MODEL.ROI_HEADS.NUM_CLASSES", max(len(metadata.thing_classes), 1),
        "MODEL.SEM_SEG_HEAD.NUM_CLASSES", len(metadata.stuff_classes), *options,
    ])  # fmt: skip
    return cfg


def train_and_evaluate(root, *options):
    """Two iterations and an evaluation; the results. A loss that is not finite stops a training."""
    cfg = config(root, *options)
    (root / "out").mkdir()
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    assert all(p.isfinite().all() for p in trainer.model.parameters())
    return json.loads((root / "out/inference/odd/results.json").read_text())


def perfect(record):
    """The output of a model that knows the ground truth."""
    mapped = PanopticDatasetMapper(is_train=True, augmentations=[], image_format="BGR")(record)
    instances, semantic = mapped["instances"], mapped["sem_seg"]
    ids, segments = torch.zeros_like(semantic), []
    for k in semantic.unique().tolist():
        if k not in (0, 255):
            segments.append({"id": len(segments) + 1, "isthing": False, "category_id": k})
            ids[semantic == k] = len(segments)
    for mask, k in zip(instances.gt_masks.tensor, instances.gt_classes.tolist(), strict=True):
        segments.append({"id": len(segments) + 1, "isthing": True, "category_id": k})
        ids[mask] = len(segments)
    return {"panoptic_seg": (ids, segments)}


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


def test_ap_of_string_ids_is_that_of_numbers(tmp_path):
    """pycocotools sorts "10" before "9"."""
    found = []
    for ids in ((9, 10, 11, 12), ("9", "10", "11", "12")):
        root = tmp_path / str(type(ids[0]).__name__)
        root.mkdir()
        write(root, [scene(), scene(40, 72)], ids=ids)
        cfg = config(root, "TEST.PICTURES", 0)
        evaluator = build_panoptic_evaluator(cfg, "odd", str(root / "out"))
        evaluator.reset()
        for record in DatasetCatalog.get("odd"):
            mapped = PanopticDatasetMapper(is_train=True, augmentations=[], image_format="BGR")(record)
            truth = mapped["instances"]
            instances = type(truth)(truth.image_size, pred_boxes=truth.gt_boxes, pred_masks=truth.gt_masks.tensor,
                                    pred_classes=truth.gt_classes * 0, scores=torch.ones(len(truth)))  # fmt: skip
            semantic = torch.nn.functional.one_hot(mapped["sem_seg"].clamp(max=2), 3).permute(2, 0, 1)
            evaluator.process([record], [{**perfect(record), "instances": instances, "sem_seg": semantic}])
        found.append(evaluator.evaluate())
        DatasetCatalog.remove("odd")
        MetadataCatalog.remove("odd")
    assert repr(found[0]) == repr(found[1])
    assert found[0]["segm"]["AP-cat"] > 0 == found[0]["segm"]["AP-dog"]


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
    assert Image.open(record["pan_seg_file_name"]).mode == mode
    after = mapper(record)
    assert torch.equal(before["sem_seg"], after["sem_seg"])
    assert torch.equal(before["instances"].gt_masks.tensor, after["instances"].gt_masks.tensor)
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
