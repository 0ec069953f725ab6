"""The mapper from Pathfinder records to the inputs of a contour model."""

import logging
from collections.abc import Sequence

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from detectron2.utils.logger import log_first_n
from PIL import Image

from ..images import ImageError, check_header, decoding
from .files import read_stimulus
from .stimuli import generate_pathfinder

FLIPS = {"none": (), "horizontal": ("horizontal",), "vertical": ("vertical",), "both": ("horizontal", "vertical")}


class PathfinderDatasetMapper:
    """Reads or draws a stimulus, flips it at random in training, and converts it to tensors.

    Adds `image` (1 x H x W uint8) and `sem_seg` (H x W long: 0, 1 on the target, 255 ignored) to a record, the latter
    also in evaluation. Besides records of the Pathfinder data sets it takes dicts of one-channel images in
    detectron2's format: file_name, sem_seg_file_name, height, width.

    Args:
        augmentations: sequence of augmentations, applied to image and target.

    Raises (when called):
        FileNotFoundError, ValueError: see read_stimulus, read_grey and read_target.
    """

    @configurable
    def __init__(self, *, augmentations: Sequence[T.Augmentation | T.Transform] = ()):
        self.augmentations = T.AugmentationList(augmentations)

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict:
        flips = cfg.INPUT.RANDOM_FLIP
        if flips not in FLIPS:
            raise ValueError(f"INPUT.RANDOM_FLIP is {flips!r}; allowed: {', '.join(FLIPS)}")
        directions = FLIPS[flips] if is_train else ()
        return {"augmentations": [T.RandomFlip(**{"horizontal": False, direction: True}) for direction in directions]}

    def __call__(self, dataset_dict: dict) -> dict:
        result = {key: value for key, value in dataset_dict.items() if key != "stimulus"}
        image, target = load_stimulus(dataset_dict)
        inputs = T.AugInput(image, sem_seg=target)
        self.augmentations(inputs)
        result["image"] = torch.from_numpy(np.ascontiguousarray(inputs.image)[None])
        result["sem_seg"] = torch.from_numpy(np.ascontiguousarray(inputs.sem_seg).astype(np.int64))
        return result


def load_stimulus(record: dict) -> tuple[np.ndarray, np.ndarray]:
    """Image and target of a record, each uint8, H x W.

    Raises:
        FileNotFoundError, ValueError: see PathfinderDatasetMapper.
    """
    if "stimulus" in record:
        spec, seed, index = record["stimulus"]
        images, targets = generate_pathfinder(spec, 1, seed, first=index)
        return images[0], targets[0]
    size = record["height"], record["width"]
    if "sem_seg_file_name" in record:
        return read_grey(record["file_name"], *size), read_target(record["sem_seg_file_name"], *size)
    return read_stimulus(record["file_name"], record["image_id"], size)


def read_grey(path: str, height: int, width: int, indexed: bool = False) -> np.ndarray:
    """H x W uint8 of a grey image. Bilevel images become 0 and 255, palettes of greys those greys.

    Args:
        indexed: bool, return the indices of a palette of colors, which is rejected otherwise.

    Raises:
        FileNotFoundError: no such file.
        UnreadableImageError: it is truncated or damaged.
        ImageError: another size than H x W, more than 8 bits, several channels.
    """
    with decoding(path) as (image, header):
        check_header(header, path, width, height)
        image = utils._apply_exif_orientation(image)
        if header.mode == "P":
            numbers, greys = np.array(image), _greys(image)
            if greys is not None or indexed:
                return numbers if greys is None else greys[numbers]
        if header.mode not in ("L", "1"):
            what = "a palette of colors" if header.mode == "P" else f"{len(image.getbands())} channels"
            raise ImageError(f"{path} has {what} (mode {header.mode}), but a contour model takes images of 1")
        return np.array(image.convert("L"))


def read_target(path: str, height: int, width: int) -> np.ndarray:
    """H x W uint8 of a label map: 1 on the target, 255 on ignored pixels, 0 elsewhere.

    A mask of 0 and 255 only, as drawing programs write it, has its target at 255. The labels of a palette are its
    greys, or its indices if it has colors.

    Raises:
        FileNotFoundError, UnreadableImageError, ImageError: see read_grey; other labels than these.
    """
    labels = read_grey(path, height, width, indexed=True)
    found = np.unique(labels).tolist()
    if unknown := set(found) - {0, 1, 255}:
        raise ImageError(f"{path} has the label {min(unknown)}; allowed are 0, 1 and 255 (ignored), or 0 and 255")
    if found != [0, 255]:
        return labels
    log_first_n(logging.INFO, f"{path} has the values 0 and 255 only: 255 is the target", name=__name__)
    return (labels > 0).astype(np.uint8)


def _greys(image: Image.Image) -> np.ndarray | None:
    """The grey of each index of a palette; None if an index in use has a color."""
    colors = np.zeros((256, 3), np.uint8)
    palette = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
    colors[: len(palette)] = palette
    used = colors[np.unique(np.asarray(image))]
    return colors[:, 0] if (used == used[:, :1]).all() else None
