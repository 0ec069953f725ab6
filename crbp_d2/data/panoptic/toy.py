"""The toy scenes as a COCO-panoptic data set on disk, written on first use."""

import hashlib
import json
import logging
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from detectron2.data import MetadataCatalog

from .dataset import panoptic_metadata, register_with_metadata
from .png import encode_ids

# Class and mean hue in degrees; hues spread by 40, so that neighbours overlap and color does not determine the class.
THINGS = {"disc": 0, "square": 70, "triangle": 140, "star": 215, "ring": 290}
HUE_SPREAD = 40
STUFF = ("stripes", "checks", "grass", "sky")
# Minimum visible pixels of an annotated segment; smaller remains of occluded shapes are void.
MIN_VISIBLE = 40
# Shapes of hard scenes: range of their aspect ratio, and radius of a ring's hole relative to the ring's.
SQUEEZED, THIN_HOLE = (0.3, 0.7), 0.65


@dataclass
class Scene:
    """image: S x S x 3 uint8 RGB. segments: S x S int, 0 void, else 1 + index into `classes`. classes: names."""

    image: np.ndarray
    segments: np.ndarray
    classes: list[str]


def draw_scene(seed: tuple[int, ...], size: int = 128, hard: bool = False) -> Scene:
    """The scene of a seed; `hard`: two to three times as many and thinner shapes, with more occlusion."""
    rng = np.random.default_rng(seed)
    regions = _regions(rng, size)
    image = np.zeros((size, size, 3), dtype=np.float64)
    segments = np.zeros((size, size), dtype=np.int64)
    classes: list[str] = []
    for region, name in enumerate(rng.permutation(STUFF)[: regions.max() + 1]):
        mask = regions == region
        image[mask] = _stuff_texture(rng, str(name), size)[mask]
        classes.append(str(name))
        segments[mask] = len(classes)
    for _ in range(rng.integers(6, 13) if hard else rng.integers(2, 6)):
        name = list(THINGS)[rng.integers(len(THINGS))]
        mask, outline = _shape(rng, name, size, hard)
        image[mask] = _thing_texture(rng, name, size)[mask]
        image[outline] *= 0.3
        classes.append(name)
        segments[mask] = len(classes)
    image += rng.normal(0, 4, image.shape)
    segments, classes = _drop_small(segments, classes)
    return Scene(image.clip(0, 255).astype(np.uint8), segments, classes)


def _drop_small(segments: np.ndarray, classes: list[str]) -> tuple[np.ndarray, list[str]]:
    """Segments too small to annotate become void; the others are numbered anew."""
    areas = np.bincount(segments.ravel(), minlength=len(classes) + 1)[1:]
    kept = np.flatnonzero(areas >= MIN_VISIBLE)
    table = np.zeros(len(classes) + 1, dtype=np.int64)
    table[kept + 1] = np.arange(1, len(kept) + 1)
    return table[segments], [classes[k] for k in kept]


def _smooth_noise(rng: np.random.Generator, size: int, cells: int) -> np.ndarray:
    """S x S in about [-1, 1], with features of about S / cells pixels."""
    coarse = rng.uniform(-1, 1, (cells + 1, cells + 1))
    return cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)


def _regions(rng: np.random.Generator, size: int) -> np.ndarray:
    """S x S in 0..count-1: nearest of 2 or 3 centres, with wavy borders."""
    count = rng.integers(2, 4)
    angles = rng.uniform(0, 2 * np.pi) + 2 * np.pi * np.arange(count) / count
    centres = size / 2 + size / 3 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    y, x = np.mgrid[:size, :size]
    x = x + size / 8 * _smooth_noise(rng, size, 4)
    y = y + size / 8 * _smooth_noise(rng, size, 4)
    distances = [(x - cx) ** 2 + (y - cy) ** 2 for cx, cy in centres]
    return np.argmin(distances, axis=0)


def _color(rng: np.random.Generator, hue: float, spread: float, saturation: float, value: float) -> np.ndarray:
    """RGB near a hue in degrees."""
    hsv = np.array([[[(hue + rng.uniform(-spread, spread)) % 360, saturation, value]]], dtype=np.float32)
    return 255.0 * cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0].astype(np.float64)


def _stuff_texture(rng: np.random.Generator, name: str, size: int) -> np.ndarray:
    """S x S x 3."""
    y, x = np.mgrid[:size, :size].astype(np.float64)
    angle = rng.uniform(0, np.pi)
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    period = rng.uniform(6, 10)
    if name == "stripes":
        pattern = np.sin(2 * np.pi * u / period) > 0
        first, second = _color(rng, 30, 40, 0.35, 0.85), _color(rng, 30, 40, 0.5, 0.5)
    elif name == "checks":
        pattern = (np.sin(np.pi * u / period) > 0) ^ (np.sin(np.pi * v / period) > 0)
        first, second = _color(rng, 280, 60, 0.15, 0.9), _color(rng, 280, 60, 0.3, 0.45)
    elif name == "grass":
        pattern = rng.uniform(0, 1, (size, size))
        first, second = _color(rng, 110, 30, 0.6, 0.75), _color(rng, 110, 30, 0.7, 0.3)
    else:
        pattern = 0.5 + 0.5 * _smooth_noise(rng, size, 3)
        first, second = _color(rng, 210, 25, 0.2, 0.95), _color(rng, 210, 25, 0.5, 0.75)
    weight = np.asarray(pattern, dtype=np.float64)[..., None]
    return weight * first + (1 - weight) * second


def _thing_texture(rng: np.random.Generator, name: str, size: int) -> np.ndarray:
    """S x S x 3: one saturated color, shaded and lightly dotted."""
    base = _color(rng, THINGS[name], HUE_SPREAD, rng.uniform(0.7, 1), rng.uniform(0.65, 1))
    y, x = np.mgrid[:size, :size].astype(np.float64)
    angle, period = rng.uniform(0, 2 * np.pi), rng.uniform(5, 9)
    shade = 1 + 0.25 * ((x - size / 2) * np.cos(angle) + (y - size / 2) * np.sin(angle)) / size
    dots = 1 - 0.15 * ((np.sin(2 * np.pi * x / period) > 0.5) & (np.sin(2 * np.pi * y / period) > 0.5))
    return base * (shade * dots)[..., None]


def _shape(rng: np.random.Generator, name: str, size: int, thin: bool) -> tuple[np.ndarray, np.ndarray]:
    """Mask and outline of a shape at a random place, S x S booleans each; `thin`: squeezed along one direction."""
    radius = rng.uniform(0.1, 0.22) * size
    centre = rng.uniform(0.6 * radius, size - 0.6 * radius, 2)
    turn = rng.uniform(0, 2 * np.pi)
    corners = {"disc": 40, "ring": 40, "square": 4, "triangle": 3, "star": 10}[name]
    radii = np.full(corners, radius)
    if name == "star":
        radii[1::2] *= 0.45
    angles = turn + 2 * np.pi * np.arange(corners) / corners
    offsets = radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    if thin:
        across = rng.uniform(0, np.pi)
        direction = np.array([np.cos(across), np.sin(across)])
        offsets -= (1 - rng.uniform(*SQUEEZED)) * np.outer(offsets @ direction, direction)
    rings = [centre + offsets]
    if name == "ring":
        rings.append(centre + (THIN_HOLE if thin else 0.5) * offsets)
    points = [np.round(ring).astype(np.int32) for ring in rings]
    mask = cv2.fillPoly(np.zeros((size, size), np.uint8), points, 1)
    outline = cv2.polylines(np.zeros((size, size), np.uint8), points, True, 1, 1)
    return mask.astype(bool), (outline & mask).astype(bool)


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

    The files are written on first use. A scene depends on seed, split and its index, not on the counts.

    Args:
        root: str, parent of the data set's folder; default DETECTRON2_DATASETS, else "datasets".
        num_train, num_val: int, number of images.
        size: int, image side in pixels, at least 64.
        seed: int, seed of all scenes.
        hard: bool, scenes with more occlusion and thinner shapes, as `toy_panoptic_hard_train` and `_val`.

    Raises:
        ValueError: invalid arguments, or the names are registered with other arguments.
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
    """The files are written on first use."""


def write_toy_panoptic(folder: Path, split: str, count: int, size: int, seed: int, hard: bool = False) -> None:
    """Write one split into `folder` unless it exists; a kill leaves no folder of that name."""
    # Scenes of another version of this file are other data.
    version = hashlib.sha256(Path(__file__).with_name("toy.py").read_bytes()).hexdigest()[:12]
    stamp = folder / "version"

    def is_written() -> bool:
        return stamp.exists() and stamp.read_text() == version

    if is_written():
        return
    logging.getLogger(__name__).info("Drawing %d toy scenes into %s", count, folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}_", dir=folder.parent))
    try:
        _write(temporary, split, count, size, seed, hard)
        (temporary / "version").write_text(version)
        temporary.chmod(0o755)
        # Another process may have been faster; its files are the same, and in use.
        if folder.exists() and not is_written():
            folder.rename(temporary / "old")
        temporary.rename(folder)
        shutil.rmtree(folder / "old", ignore_errors=True)
    except OSError:
        if not is_written():
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
