"""Polygons and run-length codes of many annotations at once: validity, area and box. Nothing is drawn or decoded."""

import re
from itertools import chain

import numpy as np
from pycocotools import mask as coco_mask

from .schema import is_length, is_number

# 6 bits a character from "0"; the highest says that a number continues, which the last character must not.
RUN_LENGTHS = re.compile("([0-o]*[0-O])?")
MOST_COORDINATE = 2**24
# pycocotools counts pixels in 32 bits.
MOST_PIXELS = 2**31
# Characters of the largest of them, and strings that are checked at once, so that they stay in the cache.
MOST_DIGITS, BLOCK = 7, 256


def measure_masks(segmentations: list) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Measure the masks of n annotations.

    Returns:
        n x 2: lower and upper bound of the area; equal for run lengths. NaN for invalid masks.
        n x 4: x0, y0, x1, y1; NaN for invalid masks, and without pixels.
        n x 2: height and width of run-length codes, else 0.
    """
    count = len(segmentations)
    areas, boxes, sizes = np.full((count, 2), np.nan), np.full((count, 4), np.nan), np.zeros((count, 2), np.int64)
    polygons = [k for k, s in enumerate(segmentations) if type(s) is list and s and set(map(type, s)) == {list}]
    if polygons:
        areas[polygons], boxes[polygons] = _measure_polygons([segmentations[k] for k in polygons])
    codes = [k for k, s in enumerate(segmentations) if _is_code(s)]
    sizes[codes] = np.array([segmentations[k]["size"] for k in codes], np.int64).reshape(-1, 2)
    packed = [k for k in codes if type(segmentations[k]["counts"]) is str]
    valid = _sums_match([segmentations[k]["counts"] for k in packed], sizes[packed].prod(axis=1))
    codes = sorted({*codes} - {k for k, holds in zip(packed, valid, strict=True) if not holds})
    if codes:
        rles = [compressed(segmentations[k]) for k in codes]
        areas[codes] = coco_mask.area(rles)[:, None]
        corners = coco_mask.toBbox(rles)
        corners[:, 2:] += corners[:, :2]
        boxes[codes] = np.where(areas[codes][:, :1] > 0, corners, np.nan)
    return areas, boxes, sizes


def compressed(code: dict) -> dict:
    """A run-length code whose counts are a string."""
    return coco_mask.frPyObjects(code, *code["size"]) if isinstance(code["counts"], list) else code


def as_run_lengths(mask: list | dict, height: int, width: int) -> dict:
    """The run-length code of polygons, drawn by pycocotools; other masks as they are."""
    return coco_mask.merge(coco_mask.frPyObjects(mask, height, width)) if isinstance(mask, list) else mask


def _measure_polygons(polygons: list[list[list]]) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of the area (of the largest ring, and of all) and box; NaN if a ring is invalid."""
    rings = list(chain.from_iterable(polygons))
    first = np.cumsum([0, *map(len, polygons[:-1])])
    lengths = np.array(list(map(len, rings)))
    valid = (lengths >= 6) & (lengths % 2 == 0)
    flat = list(chain.from_iterable(ring for ring, holds in zip(rings, valid, strict=True) if holds))
    if set(map(type, flat)) - {int, float} or not max(map(abs, flat), default=0) < MOST_COORDINATE:
        valid &= [all(is_number(v) and abs(v) < MOST_COORDINATE for v in ring) for ring in rings]
        flat = list(chain.from_iterable(ring for ring, holds in zip(rings, valid, strict=True) if holds))
    areas, boxes = np.full(len(rings), np.nan), np.full((len(rings), 4), np.nan)
    if flat:
        points = np.array(flat, np.float64).reshape(-1, 2)
        sizes = lengths[valid] // 2
        starts = np.cumsum([0, *sizes[:-1]])
        following = np.arange(1, len(points) + 1)
        following[starts + sizes - 1] = starts
        (x, y), (next_x, next_y) = points.T, points[following].T
        areas[valid] = np.abs(np.add.reduceat(x * next_y - next_x * y, starts)) / 2
        corners = np.minimum.reduceat(points, starts), np.maximum.reduceat(points, starts)
        boxes[valid] = np.hstack(corners)
        # A coordinate that is not a number makes its ring invalid.
        areas[np.isnan(boxes).any(axis=1)] = np.nan
    bounds = np.stack([np.maximum.reduceat(areas, first), np.add.reduceat(areas, first)], axis=1)
    low, high = np.minimum.reduceat(boxes[:, :2], first), np.maximum.reduceat(boxes[:, 2:], first)
    return bounds, np.hstack([low, high])


def _is_code(value: object) -> bool:
    """Test for the form of a run-length code; pycocotools does not check what it reads."""
    if not isinstance(value, dict):
        return False
    size, counts = value.get("size"), value.get("counts")
    if not (
        isinstance(size, list) and len(size) == 2 and all(map(is_length, size)) and size[0] * size[1] < MOST_PIXELS
    ):
        return False
    if isinstance(counts, list):
        return all(type(c) is int and c >= 0 for c in counts) and sum(counts) == size[0] * size[1]
    return isinstance(counts, str) and RUN_LENGTHS.fullmatch(counts) is not None


def _sums_match(counts: list[str], pixels: np.ndarray) -> np.ndarray:
    """Test for each string that its run lengths are non-negative and sum to its number of pixels."""
    blocks = [slice(k, k + BLOCK) for k in range(0, len(counts), BLOCK)]
    return np.concatenate([np.zeros(0, bool), *(_block_matches(counts[b], pixels[b]) for b in blocks)])


def _block_matches(counts: list[str], pixels: np.ndarray) -> np.ndarray:
    codes = np.frombuffer("".join(counts).encode(), np.uint8) - ord("0")
    if not len(codes):
        return np.zeros(len(counts), bool)
    # 5 bits a character, the lowest first; the last one has the sign.
    ends = np.flatnonzero(codes < 32)
    starts = np.concatenate([[0], ends[:-1] + 1])
    digits = ends - starts + 1
    numbers = np.where(codes[ends] & 16, -1 << 5 * np.minimum(digits, MOST_DIGITS), 0)
    for place in range(min(digits.max(), MOST_DIGITS)):
        longer = digits > place
        numbers[longer] |= (codes[starts[longer] + place] & 31).astype(np.int64) << 5 * place
    # From the fourth on, a number is the difference to the one before the last.
    stops = np.searchsorted(ends, np.cumsum(list(map(len, counts))))
    first = np.concatenate([[0], stops[:-1]])
    owners = np.repeat(np.arange(len(counts)), stops - first)
    rank = np.arange(len(ends)) - first[owners]
    lengths = np.where(rank == 0, numbers, 0)
    for chain_of in ((rank % 2 == 1), (rank % 2 == 0) & (rank > 0)):
        sums = np.cumsum(np.where(chain_of, numbers, 0))
        lengths += np.where(chain_of, sums - sums[first[owners]], 0)
    totals = np.bincount(owners, lengths, len(counts))
    wrong = np.bincount(owners, (lengths < 0) | (digits > MOST_DIGITS), len(counts))
    return (totals == pixels) & (wrong == 0)
