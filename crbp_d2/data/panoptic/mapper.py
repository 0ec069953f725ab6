"""The mapper from dataset dicts to the inputs of a panoptic model."""

import copy

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, Instances

from ..images import read_image
from ..instances import InstanceDatasetMapper
from .png import from_bytes, to_bytes
from .reader import segment_indices, semantic_table


class PanopticDatasetMapper(InstanceDatasetMapper):
    """detectron2's DatasetMapper, which also derives instances and semantic map from a panoptic PNG.

    A dict with `segments_info` is read by the same reader as in evaluation. In training it gets `instances` (gt_boxes,
    gt_classes, gt_masks as BitMasks; without crowds) and `sem_seg` (H x W long) of the augmented image, H x W. Any
    other dict is mapped by InstanceDatasetMapper.

    Raises (when called):
        FileNotFoundError: an image or PNG does not exist.
        ValueError: one of them cannot be read, or contradicts the JSON; names file, image and key.
    """

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict:
        settings = super().from_config(cfg, is_train)
        settings["augmentations"] = [
            ResizeToPixels(a.short_edge_length, a.max_size, a.sample_style, a.interp)
            if type(a) is T.ResizeShortestEdge
            else a
            for a in settings["augmentations"]
        ]
        return settings

    def __call__(self, dataset_dict: dict) -> dict:
        if "segments_info" not in dataset_dict:
            return super().__call__(dataset_dict)
        result = copy.deepcopy(dataset_dict)
        segments = result.pop("segments_info")
        result.pop("annotations", None)
        source = f"images[] of the JSON, of image {result.get('image_id')!r},"
        image = read_image(result["file_name"], self.image_format, result["width"], result["height"], source)
        # One map of segments is augmented, so that masks and classes agree.
        inputs = T.AugInput(image, sem_seg=_augmentable(segment_indices(dataset_dict)) if self.is_train else None)
        self.augmentations(inputs)
        result["image"] = torch.as_tensor(np.ascontiguousarray(inputs.image.transpose(2, 0, 1)))
        if self.is_train:
            indices = inputs.sem_seg if inputs.sem_seg.ndim == 2 else from_bytes(inputs.sem_seg)
            indices = torch.as_tensor(indices.astype(np.int64))
            labels = torch.as_tensor(semantic_table(segments)).long()
            self.check_labels(labels[1:], result["pan_seg_file_name"])
            result["sem_seg"] = labels[indices]
            result["instances"] = _instances(indices, segments)
        return result


class ResizeToPixels(T.ResizeShortestEdge):
    """ResizeShortestEdge that keeps at least one pixel of the shorter side."""

    def get_transform(self, image: np.ndarray) -> T.Transform:
        transform = super().get_transform(image)
        if isinstance(transform, T.ResizeTransform) and min(transform.new_h, transform.new_w) < 1:
            size = max(transform.new_h, 1), max(transform.new_w, 1)
            return T.ResizeTransform(*image.shape[:2], *size, self.interp)
        return transform


def _augmentable(indices: np.ndarray) -> np.ndarray:
    """Bytes, which every augmentation takes: three channels of them for more than 255 segments."""
    return indices if indices.dtype == np.uint8 else to_bytes(indices)


def _instances(indices: torch.Tensor, segments: list[dict]) -> Instances:
    present = set(indices.unique().tolist())
    chosen = [k for k, s in enumerate(segments, start=1) if s["isthing"] and not s["iscrowd"] and k in present]
    masks = BitMasks(indices[None] == torch.tensor(chosen, dtype=torch.long).view(-1, 1, 1))
    instances = Instances(tuple(indices.shape))
    instances.gt_boxes = masks.get_bounding_boxes()
    instances.gt_classes = torch.tensor([segments[k - 1]["category_id"] for k in chosen], dtype=torch.long)
    instances.gt_masks = masks
    return instances
