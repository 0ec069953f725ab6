"""From Pathfinder records to what a contour model takes."""

from collections.abc import Sequence

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import transforms as T

from .archives import read_stimulus
from .grey_images import read_grey, read_target
from .stimuli import generate_pathfinder

FLIPS = {"none": (), "horizontal": ("horizontal",), "vertical": ("vertical",), "both": ("horizontal", "vertical")}


class PathfinderDatasetMapper:
    """Reads or draws a stimulus, flips it at random in training, and makes tensors of it.

    Adds to a record `image` (1 x H x W uint8) and `sem_seg` (H x W long, 1 on the target), the latter in
    evaluation too. Besides records of the Pathfinder data sets it takes dicts of one-channel images in
    detectron2's format: file_name, sem_seg_file_name, height, width; see `grey_images`.

    Args:
        augmentations: applied to image and target alike.

    Raises (when called):
        FileNotFoundError: no such file.
        ValueError: names a file that cannot be read, has several channels, more than 8 bits or another size than its
            record says, or holds labels that are no class.
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
