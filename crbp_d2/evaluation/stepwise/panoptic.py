"""Panoptic predictions after several numbers of steps, from one run over an image.

N: instances; T: step counts; H x W: image size; h x w: size of a part of it; M: side of a mask head's output.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from detectron2.layers.mask_ops import _do_paste_mask
from detectron2.modeling.meta_arch.panoptic_fpn import combine_semantic_and_instance_outputs
from detectron2.modeling.roi_heads.mask_head import mask_rcnn_inference
from detectron2.structures import Instances
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..recording import StateRecord, record_states

Part = tuple[slice, slice]


@dataclass(frozen=True)
class MergeLimits:
    """How PanopticFPN merges instances and semantic map; see combine_semantic_and_instance_outputs."""

    overlap: float
    stuff_area: float
    score: float


class PredictionsByStep(Mapping):
    """{t: {"instances", "panoptic_seg"}} of an image, as PanopticFPN gives them after t steps.

    Only `masks` depend on t. An entry is worked out when it is asked for, since the full-size masks of all
    instances at all step counts would not fit into memory on large images; what evaluation needs of all of
    them is in `pasted`.

    Args:
        steps: the T step counts.
        instances: N of the image at its output size, with pred_boxes, scores and pred_classes.
        masks: N x T x M x M probabilities in the boxes.
        semantic: H x W, the semantic class of each pixel.
        limits: of the merge.
    """

    def __init__(
        self, steps: tuple[int, ...], instances: Instances, masks: Tensor, semantic: Tensor, limits: MergeLimits
    ):
        self.steps = steps
        self.instances = instances
        self.masks = masks
        self.semantic = semantic
        self.limits = limits

    @cached_property
    def pasted(self) -> list[tuple[np.ndarray, Part]]:
        """Of each instance its masks, T x h x w booleans, and the part of the image where they lie."""
        return [
            paste(masks, box, self.instances.image_size)
            for masks, box in zip(self.masks, self.instances.pred_boxes.tensor, strict=True)
        ]

    def __getitem__(self, t: int) -> dict:
        if t not in self.steps:
            raise KeyError(t)
        k = self.steps.index(t)
        instances = Instances(self.instances.image_size, **self.instances.get_fields())
        full = torch.zeros(len(instances), *instances.image_size, dtype=torch.bool)
        for mask, (pasted, part) in zip(full, self.pasted, strict=True):
            mask[part] = torch.from_numpy(pasted[k])
        instances.pred_masks = full.to(self.masks.device)
        limits = self.limits
        return {
            "instances": instances,
            "panoptic_seg": combine_semantic_and_instance_outputs(
                instances, self.semantic, limits.overlap, limits.stuff_area, limits.score
            ),
        }

    def __iter__(self) -> Iterator[int]:
        return iter(self.steps)

    def __len__(self) -> int:
        return len(self.steps)


def paste(masks: Tensor, box: Tensor, size: tuple[int, int], threshold: float = 0.5) -> tuple[np.ndarray, Part]:
    """T masks of one box, T x M x M probabilities, as T x h x w booleans in a part of an H x W image.

    detectron2's pasting with all masks of a box at once; outside the part they are empty.
    """
    boxes = box.expand(len(masks), 4)
    pasted, part = _do_paste_mask(masks[:, None], boxes, *size, skip_empty=True)
    return (pasted >= threshold).cpu().numpy(), (_whole(part[0]), _whole(part[1]))


def _whole(part: slice) -> slice:
    return slice(int(part.start), int(part.stop))


class StepwisePanoptic(nn.Module):
    """A PanopticFPN with a RecurrentMaskHead, whose outputs hold the predictions after other step counts too.

    Each output has, beside the model's own entries, `by_step`: PredictionsByStep. Backbone, proposals, boxes
    and semantic map are computed once, and the recurrence runs once.

    Args:
        model: the PanopticFPN, or that in DistributedDataParallel.
        steps: each t, at least 1; none leaves the outputs as they are.

    Raises:
        ValueError: a mask head without steps.
    """

    def __init__(self, model: nn.Module, steps: tuple[int, ...]):
        super().__init__()
        self.model = model.module if isinstance(model, DistributedDataParallel) else model
        self.steps = tuple(steps)
        if self.steps and not hasattr(self.model.roi_heads.mask_head, "recurrence"):
            raise ValueError(f"{type(self.model.roi_heads.mask_head).__name__} has no steps to evaluate")

    def forward(self, inputs: list[dict]) -> list[dict]:
        if not self.steps:
            return self.model(inputs)
        model, head = self.model, self.model.roi_heads.mask_head
        with record_states(head.recurrence, max(self.steps)) as run:
            hook = head.register_forward_hook(lambda head, _, instances: self._add_masks(head, instances, run))
            try:
                outputs = model(inputs)
            finally:
                hook.remove()
        limits = MergeLimits(
            model.combine_overlap_thresh, model.combine_stuff_area_thresh, model.combine_instances_score_thresh
        )
        for output in outputs:
            instances = output["instances"]
            masks = instances.pred_masks_by_step
            instances.remove("pred_masks_by_step")
            fields = {name: value for name, value in instances.get_fields().items() if name != "pred_masks"}
            output["by_step"] = PredictionsByStep(
                self.steps,
                Instances(instances.image_size, **fields),
                masks,
                output["sem_seg"].argmax(dim=0),
                limits,
            )
        return outputs

    @torch.no_grad()
    def _add_masks(self, head: nn.Module, instances: list[Instances], run: StateRecord) -> None:
        """Give the instances `pred_masks_by_step`, N x T x M x M, before detectron2 moves and drops some of them."""
        kept = [of_image.pred_masks for of_image in instances]
        by_step = []
        for t in self.steps:
            mask_rcnn_inference(head.read_out(run.after(t)[0]), instances)
            by_step.append([of_image.pred_masks for of_image in instances])
        for of_image, own, *masks in zip(instances, kept, *by_step, strict=True):
            of_image.pred_masks, of_image.pred_masks_by_step = own, torch.cat(masks, dim=1)
