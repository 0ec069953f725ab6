"""Panoptic ground truth as detectron2's own mapper, evaluators and tools read it: polygons and label maps.

Both are derived from the panoptic PNG on access; nothing is written. H x W: image size.
"""

import io
import json
from functools import lru_cache
from urllib.parse import quote, unquote

import cv2
import numpy as np
from detectron2.utils.file_io import PathManager
from iopath.common.file_io import PathHandler
from pycocotools import mask as coco_mask

from .png import load_ids
from .schema import VOID

PREFIX = "panoptic-semantic://"


def semantic_path(record: dict) -> str:
    """A path that opens as the semantic label map (a PNG) of a record of `load_panoptic`."""
    described = {key: record[key] for key in ("pan_seg_file_name", "width", "height")}
    described["segments"] = [
        [segment["id"], 0 if segment["isthing"] else segment["category_id"]] for segment in record["segments_info"]
    ]
    return PREFIX + quote(json.dumps(described))


class SemanticMaps(PathHandler):
    """Opens the paths of `semantic_path` as PNGs in memory."""

    def _get_supported_prefixes(self) -> list[str]:
        return [PREFIX]

    def _isfile(self, path: str, **kwargs) -> bool:
        return PathManager.isfile(_described(path)["pan_seg_file_name"])

    _exists = _isfile

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **kwargs) -> io.BytesIO:
        described = _described(path)
        ids = _ids(described["pan_seg_file_name"], described["width"], described["height"])
        labels = np.full(ids.shape, VOID, np.uint8)
        for segment_id, number in described["segments"]:
            labels[ids == segment_id] = number
        return io.BytesIO(cv2.imencode(".png", labels)[1].tobytes())


def _described(path: str) -> dict:
    return json.loads(unquote(path.removeprefix(PREFIX)))


class ThingAnnotation(dict):
    """One of a record's `annotations`, whose "segmentation" is read from the PNG on access.

    Polygons whose union is exactly the mask; run lengths for a crowd, as in COCO.

    Args:
        annotation: dict, the other keys.
        segment_id: int, id in the PNG.
        path, width, height: str and ints, the PNG and its size.
    """

    def __init__(self, annotation: dict, segment_id: int, path: str, width: int, height: int):
        super().__init__(annotation)
        self._source = (segment_id, path, width, height)

    def __reduce__(self):
        return type(self), (dict(self), *self._source)

    def __contains__(self, key: object) -> bool:
        return key == "segmentation" or super().__contains__(key)

    def __missing__(self, key: str) -> list | dict:
        if key != "segmentation":
            raise KeyError(key)
        segment_id, path, width, height = self._source
        mask = _ids(path, width, height) == segment_id
        if not self.get("iscrowd"):
            return [(points + 0.0).ravel().tolist() for points in outlines(mask)]
        found = coco_mask.encode(np.asfortranarray(mask))
        return {"size": found["size"], "counts": found["counts"].decode("ascii")}

    def get(self, key: str, default=None):
        return self[key] if key in self else default  # noqa: SIM401


@lru_cache(maxsize=2)
def _ids(path: str, width: int, height: int) -> np.ndarray:
    """H x W ids, kept for the other segments of the image."""
    ids = load_ids(path, width, height)
    ids.setflags(write=False)
    return ids


def outlines(mask: np.ndarray) -> list[np.ndarray]:
    """Polygons (k x 2: x, y on the edges of pixels) without holes, whose union is an H x W mask."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return []
    corner = np.array([columns[0], rows[0]])
    part = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return [polygon + corner for polygon in _outlines(np.pad(part.astype(bool), 1))]


def _outlines(mask: np.ndarray) -> list[np.ndarray]:
    loops = _loops(mask)
    holes = [loop for loop in loops if _signed_area(loop) < 0]
    if not holes:
        return [loop - 1 for loop in loops]
    # Cut through the first hole; neither side has it.
    column = int(holes[0][:, 0].min() + holes[0][:, 0].max() + 1) // 2
    left, right = mask.copy(), mask.copy()
    left[:, column:], right[:, :column] = False, False
    return [polygon for side in (left, right) for polygon in _outlines(side)]


def _loops(mask: np.ndarray) -> list[np.ndarray]:
    """Boundaries of a padded mask along pixel edges, each with the mask on its right (y points down)."""
    follows: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for dy, dx, start, end in (
        (-1, 0, (0, 0), (1, 0)), (0, 1, (1, 0), (1, 1)), (1, 0, (1, 1), (0, 1)), (0, -1, (0, 1), (0, 0))
    ):  # fmt: skip
        for y, x in np.argwhere(mask & ~np.roll(mask, (-dy, -dx), (0, 1))).tolist():
            follows.setdefault((x + start[0], y + start[1]), []).append((x + end[0], y + end[1]))
    loops = []
    while follows:
        first = here = next(iter(follows))
        points, before = [first], None
        while True:
            here, before = _next(follows, here, before), here
            if here == first:
                break
            points.append(here)
        loops.append(_corners(np.array(points)))
    return loops


def _next(follows: dict, here: tuple[int, int], before: tuple[int, int] | None) -> tuple[int, int]:
    ends = follows[here]
    # Where two pixels touch at a corner, the right turn stays with the same pixel.
    k = 0
    if len(ends) > 1 and before is not None:
        right = (here[0] - (here[1] - before[1]), here[1] + (here[0] - before[0]))
        k = ends.index(right)
    end = ends.pop(k)
    if not ends:
        del follows[here]
    return end


def _corners(points: np.ndarray) -> np.ndarray:
    steps = np.roll(points, -1, axis=0) - points
    return points[(steps != np.roll(steps, 1, axis=0)).any(axis=1)]


def _signed_area(points: np.ndarray) -> float:
    x, y = points.T
    return float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum()) / 2


PathManager.register_handler(SemanticMaps(), allow_override=True)
