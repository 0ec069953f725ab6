"""One-channel images and targets of one's own, with errors that name the file. H x W: size."""

import logging

import numpy as np
from detectron2.data import detection_utils as utils
from detectron2.utils.logger import log_first_n
from PIL import Image

from ..images import Header, ImageError, check_header, decoding


def read_grey(path: str, height: int, width: int) -> np.ndarray:
    """H x W uint8 of a grey image. Bilevel images become 0 and 255; a palette must be one of greys.

    Raises:
        FileNotFoundError: no such file.
        UnreadableImageError: it is cut or garbled.
        ImageError: another size than H x W, more than 8 bits, several channels.
    """
    with decoding(path) as (image, header):
        check_header(header, path, width, height)
        image = utils._apply_exif_orientation(image)
        if header.mode == "P" and (greys := _greys(image)) is not None:
            return greys[np.asarray(image)]
        return _one_channel(image, header, path)


def read_target(path: str, height: int, width: int) -> np.ndarray:
    """H x W uint8 of a label map: 1 on the target, 255 where pixels are to be ignored, 0 elsewhere.

    A mask of nothing but 0 and 255, as programs that draw write it, has its target at 255. Of a palette its greys
    count, or where it has colours its numbers.

    Raises:
        FileNotFoundError, UnreadableImageError, ImageError: see read_grey; other labels than these.
    """
    with decoding(path) as (image, header):
        check_header(header, path, width, height)
        image = utils._apply_exif_orientation(image)
        if header.mode == "P":
            numbers, greys = np.asarray(image), _greys(image)
            labels = numbers if greys is None else greys[numbers]
        else:
            labels = _one_channel(image, header, path)
    found = np.unique(labels).tolist()
    if unknown := set(found) - {0, 1, 255}:
        raise ImageError(f"{path} holds the label {min(unknown)}; allowed are 0, 1 and 255 (ignored), or 0 and 255")
    if found != [0, 255]:
        return labels
    log_first_n(logging.INFO, f"{path} has 0 and 255 alone: 255 is taken for the target", name=__name__)
    return (labels > 0).astype(np.uint8)


def _greys(image: Image.Image) -> np.ndarray | None:
    """The grey of each number of a palette; None where a number that occurs has a colour."""
    colors = np.zeros((256, 3), np.uint8)
    palette = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
    colors[: len(palette)] = palette
    used = colors[np.unique(np.asarray(image))]
    return colors[:, 0] if (used == used[:, :1]).all() else None


def _one_channel(image: Image.Image, header: Header, path: str) -> np.ndarray:
    if header.mode not in ("L", "1"):
        what = "a palette of colours" if header.mode == "P" else f"{len(image.getbands())} channels"
        raise ImageError(f"{path} has {what} (mode {header.mode}), but a contour model takes images of 1")
    return np.array(image.convert("L"))
