"""Panoptic predictions after several numbers of steps, from one run over an image.

N: instances; T: step counts; H x W: image size; h x w: size of a part of it; M: side of a mask head's output.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from detectron2.data import MetadataCatalog
from detectron2.layers.mask_ops import _do_paste_mask
from detectron2.modeling.meta_arch.panoptic_fpn import combine_semantic_and_instance_outputs
from detectron2.modeling.roi_heads.mask_head import mask_rcnn_inference
from detectron2.structures import Instances
from torch import Tensor, nn

from crbp_d2.data.panoptic.reader import segment_indices, truth_records

from ..panoptic import Class, group_means, match, total
from .record import StateRecord, Stepwise, record_states

Part = tuple[slice, slice]


@dataclass(frozen=True)
class MergeLimits:
    """Thresholds by which PanopticFPN merges instances and semantic map; see combine_semantic_and_instance_outputs."""

    overlap: float
    stuff_area: float
    score: float


class PredictionsByStep(Mapping):
    """{t: {"instances", "panoptic_seg"}} of an image, as PanopticFPN gives them after t steps, on the CPU.

    Only `masks` depend on t. An entry is computed on access: the full-size masks of all instances at all step
    counts would not fit into memory on large images; `pasted` has what the evaluation needs of them.

    Args:
        steps: T step counts.
        instances: N instances of the image at its output size, with pred_boxes, scores and pred_classes.
        masks: N x T x M x M probabilities in the boxes.
        semantic: H x W, the semantic class of each pixel.
        limits: thresholds of the merge.
    """

    def __init__(
        self, steps: tuple[int, ...], instances: Instances, masks: Tensor, semantic: Tensor, limits: MergeLimits
    ):
        self.steps = steps
        # Moved once per image: what follows reads them instance by instance.
        self.instances = instances.to("cpu")
        self.masks = masks.cpu()
        self.semantic = semantic.cpu()
        self.limits = limits

    @cached_property
    def pasted(self) -> list[tuple[np.ndarray, Part]]:
        """For each instance its masks, T x h x w booleans, and the part of the image that they cover."""
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
        instances.pred_masks = full
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

    As detectron2 pastes, with all masks of a box at once; outside the part they are empty.
    """
    boxes = box.expand(len(masks), 4)
    pasted, part = _do_paste_mask(masks[:, None], boxes, *size, skip_empty=True)
    return (pasted >= threshold).numpy(), part


class StepwisePanoptic(Stepwise):
    """A PanopticFPN with a RecurrentMaskHead; `by_step` of each output is its PredictionsByStep.

    Backbone, proposals, boxes and semantic map are computed once, and the recurrence runs once.

    Args:
        model, steps: see Stepwise; the model is a PanopticFPN.
    """

    def __init__(self, model: nn.Module, steps: Sequence[int]):
        super().__init__(model, steps, "roi_heads.mask_head")

    def forward(self, inputs: list[dict]) -> list[dict]:
        if not self.steps:
            return self.model(inputs)
        model = self.model
        with record_states(self.head.recurrence, self.steps) as run:
            hook = self.head.register_forward_hook(lambda head, _, instances: self._add_masks(instances, run))
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
            without_masks, semantic = Instances(instances.image_size, **fields), output["sem_seg"].argmax(dim=0)
            output["by_step"] = PredictionsByStep(self.steps, without_masks, masks, semantic, limits)
        return outputs

    @torch.no_grad()
    def _add_masks(self, instances: list[Instances], run: StateRecord) -> None:
        """Give the instances `pred_masks_by_step`, N x T x M x M, before detectron2 moves and drops some of them."""
        own = [of_image.pred_masks for of_image in instances]
        by_step = []
        for t in self.steps:
            mask_rcnn_inference(self.head.read_out(run.after(t)[0]), instances)
            by_step.append([of_image.pred_masks for of_image in instances])
        for of_image, usual, *masks in zip(instances, own, *by_step, strict=True):
            of_image.pred_masks, of_image.pred_masks_by_step = usual, torch.cat(masks, dim=1)


# Number of counters filled at a time, which bounds the memory for large images.
CHUNK = 2**21


class PanopticQualityByStep:
    """Panoptic quality of one data set.

    Args:
        name: a registered panoptic data set.
        steps: T step counts.
    """

    def __init__(self, name: str, steps: tuple[int, ...]):
        self.steps = steps
        self.truth = truth_records(MetadataCatalog.get(name))
        self.reset()

    def reset(self) -> None:
        # image id -> result of `match`
        self.found: dict[object, dict[Class, np.ndarray]] = {}

    def add(self, image_id, prediction: PredictionsByStep) -> None:
        """Count the segments of one image.

        Raises:
            ValueError: the ground truth's PNG does not fit its JSON.
        """
        truth = self.truth[image_id]
        indices, segments = segment_indices(truth), truth["segments_info"]
        overlaps, predicted = self._overlaps(prediction, indices, len(segments))
        areas = np.bincount(indices.ravel(), minlength=len(segments) + 1)[1:]
        self.found[image_id] = match(overlaps, predicted, segments, areas)

    def _overlaps(self, prediction: PredictionsByStep, truth: np.ndarray, segments: int) -> tuple[np.ndarray, list]:
        """Pixels of each predicted segment in each true one, T x P x (G + 1), and the classes of the P."""
        owners, instances = merge_instances(prediction)
        semantic = prediction.semantic.numpy()
        stuff = 1 + len(instances)
        predicted = stuff + 1 + int(semantic.max())
        per_step = max(1, CHUNK // truth.size)
        counts = []
        for first in range(0, len(owners), per_step):
            part = owners[first : first + per_step]
            index = np.where(part > 0, part, stuff + semantic).astype(np.int64)
            index += predicted * np.arange(len(part))[:, None, None]
            index *= segments + 1
            index += truth
            size = len(part) * predicted * (segments + 1)
            counts.append(np.bincount(index.ravel(), minlength=size).reshape(len(part), predicted, segments + 1))
        overlaps = np.concatenate(counts)
        small = overlaps[:, stuff:].sum(axis=2) < prediction.limits.stuff_area
        overlaps[:, stuff:][small] = 0
        # Class 0 of a semantic map means all things, which are present as instances.
        overlaps[:, stuff] = 0
        things = [(True, prediction.instances.pred_classes[n].item()) for n in instances]
        return overlaps, [None, *things, None, *((False, k) for k in range(1, predicted - stuff))]

    def results(self, found: dict) -> dict[str, np.ndarray]:
        """PQ, SQ and RQ in percent over all classes that occur, as group_means gives them: T each.

        Args:
            found: counts of all images, as `add` collects them.
        """
        return group_means(total(found), len(self.steps))


def merge_instances(prediction: PredictionsByStep) -> tuple[np.ndarray, list[int]]:
    """detectron2's merge of overlapping instances at all step counts together.

    Returns:
        T x H x W: k + 1 at the k-th instance of the list, else 0; the instances by descending score.
    """
    limits = prediction.limits
    scores = prediction.instances.scores
    # Equal scores in detectron2's order.
    order = torch.argsort(-scores).tolist()
    instances = [n for n in order if scores[n].item() >= limits.score]
    owners = np.zeros((len(prediction), *prediction.instances.image_size), np.int16)
    for k, n in enumerate(instances, start=1):
        masks, part = prediction.pasted[n]
        below = owners[:, part[0], part[1]]
        area = np.count_nonzero(masks, axis=(1, 2))
        free = masks & (below == 0)
        covered = area - np.count_nonzero(free, axis=(1, 2))
        kept = (area > 0) & (covered / np.maximum(area, 1) <= limits.overlap)
        below[free & kept[:, None, None]] = k
    return owners, instances
