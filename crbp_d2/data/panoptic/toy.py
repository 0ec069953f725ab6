"""The toy scenes as a COCO-panoptic data set on disk, written once, when it is first used."""

import hashlib
import json
import logging
import os
import shutil
import tempfile
from pathlib import Path

import cv2
import numpy as np
from detectron2.data import MetadataCatalog

from ..images import encode_ids
from .dataset import panoptic_metadata, register_with_metadata
from .toy_scenes import STUFF, THINGS, draw_scene

SPLITS = ("train", "val")
CATEGORIES = [
    {"id": i, "name": name, "isthing": int(name in THINGS)} for i, name in enumerate((*THINGS, *STUFF), start=1)
]


def register_toy_panoptic(
    root: str | None = None,
    *,
    num_train: int = 1500,
    num_val: int = 50,
    size: int = 128,
    seed: int = 0,
    hard: bool = False,
) -> None:
    """Register `toy_panoptic_train` and `toy_panoptic_val`: 5 thing and 4 stuff classes.

    The files are written when one of the two is first used. A scene depends on seed, split and its
    index, not on the counts.

    Args:
        root: folder for the data set's own folder; default DETECTRON2_DATASETS, else "datasets".
        num_train, num_val: images of each.
        size: image side in pixels, at least 64.
        seed: of all scenes.
        hard: scenes of more occlusion and thinner shapes, as `toy_panoptic_hard_train` and `_val`.

    Raises:
        ValueError: arguments outside these, or the names are registered with other arguments.
    """
    counts = {"train": num_train, "val": num_val}
    if min(counts.values()) < 1 or size < 64 or seed < 0:
        raise ValueError(
            f"register_toy_panoptic: counts must be at least 1, size at least 64 and seed at least 0, got "
            f"num_train={num_train}, num_val={num_val}, size={size}, seed={seed}"
        )
    root = root or os.environ.get("DETECTRON2_DATASETS", "datasets")
    for split in SPLITS:
        kind = "toy_panoptic_hard" if hard else "toy_panoptic"
        folder = Path(root) / kind / f"{split}_{size}px_{counts[split]}_seed{seed}"
        name = f"{kind}_{split}"
        register_with_metadata(
            name,
            str(folder / "panoptic.json"),
            str(folder / "panoptic"),
            str(folder / "images"),
            panoptic_metadata(CATEGORIES),
            prepare=lambda f=folder, s=split: write_toy_panoptic(f, s, counts[s], size, seed, hard),
        )
        MetadataCatalog.get(name).set(check_available=_written_on_first_use)


def _written_on_first_use() -> None:
    """There is nothing to look for."""


def write_toy_panoptic(folder: Path, split: str, count: int, size: int, seed: int, hard: bool = False) -> None:
    """Write one split into `folder` unless it is there; a kill leaves nothing behind under that name."""
    # Scenes drawn by other code are other data, though their arguments are the same.
    version = hashlib.sha256(Path(__file__).with_name("toy_scenes.py").read_bytes()).hexdigest()[:12]
    stamp = folder / "version"
    if stamp.exists() and stamp.read_text() == version:
        return
    logging.getLogger(__name__).info("Drawing %d toy scenes into %s", count, folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}_", dir=folder.parent))
    try:
        _write(temporary, split, count, size, seed, hard)
        (temporary / "version").write_text(version)
        temporary.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        temporary.rename(folder)
    except OSError:
        # Another process may have been faster; its files are the same.
        if not (stamp.exists() and stamp.read_text() == version):
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(folder: Path, split: str, count: int, size: int, seed: int, hard: bool) -> None:
    ids = {category["name"]: category["id"] for category in CATEGORIES}
    images, annotations = [], []
    for name in ("images", "panoptic"):
        (folder / name).mkdir()
    for index in range(count):
        scene = draw_scene((seed, SPLITS.index(split), index), size, hard)
        file_name = f"{index:06d}.png"
        images.append({"id": index, "file_name": file_name, "height": size, "width": size})
        segments = []
        for k, class_name in enumerate(scene.classes, start=1):
            mask = scene.segments == k
            x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
            segments.append(
                {"id": k, "category_id": ids[class_name], "iscrowd": 0, "area": int(mask.sum()),
                 "bbox": [x, y, width, height]}
            )  # fmt: skip
        annotations.append({"image_id": index, "file_name": file_name, "segments_info": segments})
        cv2.imwrite(str(folder / "images" / file_name), scene.image[..., ::-1])
        (folder / "panoptic" / file_name).write_bytes(encode_ids(scene.segments))
    data = {"images": images, "annotations": annotations, "categories": CATEGORIES}
    (folder / "panoptic.json").write_text(json.dumps(data))
