"""From dataset dicts to what a panoptic model takes."""

import copy

import numpy as np
import torch
from detectron2.data import DatasetMapper
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, Instances

from .dataset import segment_indices, semantic_table


class PanopticDatasetMapper(DatasetMapper):
    """detectron2's DatasetMapper, which also takes instances and semantic map from a panoptic PNG.

    In training, a dict with `segments_info` gets `instances` (gt_boxes, gt_classes, gt_masks as
    BitMasks; crowds are left out) and `sem_seg` (H x W long) of the augmented image, H x W. Any other
    dict goes detectron2's own way.
    """

    def __call__(self, dataset_dict: dict) -> dict:
        if not self.is_train or "segments_info" not in dataset_dict:
            return super().__call__(dataset_dict)
        result = copy.deepcopy(dataset_dict)
        segments = result.pop("segments_info")
        result.pop("annotations", None)
        image = utils.read_image(result["file_name"], format=self.image_format)
        utils.check_image_size(result, image)
        # One map of segments goes through the augmentation, so masks and classes cannot part.
        inputs = T.AugInput(image, sem_seg=segment_indices(dataset_dict))
        self.augmentations(inputs)
        result["image"] = torch.as_tensor(np.ascontiguousarray(inputs.image.transpose(2, 0, 1)))
        indices = torch.as_tensor(inputs.sem_seg.astype(np.int64))
        result["sem_seg"] = torch.as_tensor(semantic_table(segments)).long()[indices]
        result["instances"] = _instances(indices, segments)
        return result


def _instances(indices: torch.Tensor, segments: list[dict]) -> Instances:
    present = set(indices.unique().tolist())
    chosen = [k for k, s in enumerate(segments, start=1) if s["isthing"] and not s["iscrowd"] and k in present]
    masks = BitMasks(indices[None] == torch.tensor(chosen, dtype=torch.long).view(-1, 1, 1))
    instances = Instances(tuple(indices.shape))
    instances.gt_boxes = masks.get_bounding_boxes()
    instances.gt_classes = torch.tensor([segments[k - 1]["category_id"] for k in chosen], dtype=torch.long)
    instances.gt_masks = masks
    return instances
