"""Panoptic PNGs: segment ids as colors, id = red + 256 green + 65536 blue. H x W: image size; k: segments."""

import cv2
import numpy as np
from PIL import Image

from ..images import Header, ImageError, UnreadableImageError, decoding
from .faults import Faults

MOST_SEGMENTS = 2**24  # ids are 3 bytes, and 0 is void
FILE_NAME = "annotations[].file_name"
NAMES_OF_MODES = {"L": "grey", "LA": "grey with alpha", "P": "palette", "RGBA": "RGBA", "1": "bilevel"}


def to_bytes(ids: np.ndarray) -> np.ndarray:
    """H x W ids below 2^24 as H x W x 3 bytes, the lowest first."""
    return np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=2).astype(np.uint8)


def from_bytes(channels: np.ndarray) -> np.ndarray:
    """H x W int32 ids of H x W x 3 bytes."""
    return channels.astype(np.int32) @ np.array([1, 256, 65536], np.int32)


def encode_ids(ids: np.ndarray) -> bytes:
    """The panoptic PNG of H x W ids below 2^24."""
    return cv2.imencode(".png", to_bytes(ids)[..., ::-1])[1].tobytes()


def decode_ids(image: Image.Image) -> np.ndarray:
    """H x W int32 ids of an RGB, RGBA or palette image."""
    return from_bytes(np.asarray(image.convert("RGB")))


def read_ids(path: str, width: int, height: int, faults: Faults, image_id: object = "") -> np.ndarray | None:
    """H x W int32 ids of a panoptic PNG, 0 where nothing is annotated; None, and a fault, if it cannot be used.

    Palette and RGBA PNGs are read like RGB ones, with a harmless fault.
    """
    try:
        with decoding(path) as (image, header):
            if fault := header_fault(header, width, height):
                faults.add(fault[0], FILE_NAME, fault[1], image_id)
                return None
            ids = decode_ids(image)
    except FileNotFoundError:
        faults.add("missing-file", FILE_NAME, "does not exist", image_id)
        return None
    except (UnreadableImageError, ImageError) as error:
        faults.add("unreadable", FILE_NAME, str(error), image_id)
        return None
    if header.mode != "RGB":
        mode = NAMES_OF_MODES.get(header.mode, header.mode)
        faults.add("channels", FILE_NAME, f"is {mode}, not RGB; supported here, but not by every tool", image_id)
    return ids


def load_ids(path: str, width: int, height: int, image_id: object = "") -> np.ndarray:
    """Like `read_ids`; raises a DatasetError, or a MissingFilesError, if the PNG cannot be used."""
    faults = Faults(path)
    ids = read_ids(path, width, height, faults, image_id)
    faults.raise_harmful()
    assert ids is not None
    return ids


def header_fault(header: Header, width: int, height: int) -> tuple[str, str] | None:
    """Kind and text of the reason why a panoptic PNG cannot be used, by its header; None for a usable one."""
    if header.size != (width, height):
        found = f"{header.size[0]} x {header.size[1]} px"
        return "size", f"is {found}, but the JSON says {width} x {height} (width, height)"
    if header.format != "PNG":
        return "png-format", f"is a {header.format}, which does not keep ids"
    if header.bits > 8 or header.mode not in ("RGB", "RGBA", "P", "PA"):
        what = f"{header.bits}-bit, mode {header.mode}" if header.mode != "L" else "grey"
        return "bits" if header.bits > 8 else "png-format", f"is {what}; ids need 3 channels of 8 bits"
    if header.orientation != 1:
        return "orientation", f"has the EXIF orientation {header.orientation}, which not all programs follow"
    return None


def locate(ids: np.ndarray, listed: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find each listed segment.

    Args:
        ids: H x W ids of the PNG.
        listed: the k ids of the JSON, distinct and above 0.

    Returns:
        H x W indices, n for the n-th listed segment from 1, else 0; uint8, or int32 for many segments.
        Ids of the PNG that are not listed.
        Listed ids without a pixel.
    """
    order = np.array([0, *listed], np.int64)
    ranks = np.argsort(order)
    found = np.searchsorted(order[ranks], ids)
    found[found == len(order)] = 0
    unknown = order[ranks][found] != ids
    indices = ranks.astype(np.uint8 if len(order) <= 256 else np.int32)[found]
    only_png = np.zeros(0, np.int64)
    if unknown.any():
        only_png = np.unique(ids[unknown])
        indices[unknown] = 0
    counts = np.bincount(indices.ravel(), minlength=len(order))[1:]
    return indices, only_png, order[1:][counts == 0]


def boxes(indices: np.ndarray, count: int) -> np.ndarray:
    """count x 4: x, y, width and height of the segments 1 to count in an H x W map, zeros for an absent one."""
    height, width = indices.shape
    rows, columns = np.zeros((count + 1, height), bool), np.zeros((count + 1, width), bool)
    rows[indices, np.arange(height)[:, None]] = True
    columns[indices, np.arange(width)[None, :]] = True
    edges = []
    for present, length in ((columns, width), (rows, height)):
        first, last = present.argmax(axis=1), length - 1 - present[:, ::-1].argmax(axis=1)
        edges.append((first, last + 1 - first))
    (x, w), (y, h) = edges
    return np.stack([x, y, w, h], axis=1)[1:] * np.logical_or.reduce(rows[1:], axis=1)[:, None]
