"""Panoptic quality after several numbers of steps, counted in memory.

Detectron2's merge of each step count is counted without a map for each: what does not depend on the steps is
worked out once.

T: step counts; H x W: image size; P: predicted, G: true segments of an image.
"""

import numpy as np
import torch
from detectron2.data import MetadataCatalog

from crbp_d2.data.panoptic.reader import segment_indices, truth_records
from crbp_d2.evaluation.quality import Class, group_means, match, total

from .panoptic import PredictionsByStep

# Counters that are filled at a time, for the memory of large images.
CHUNK = 2**21


class PanopticQualityByStep:
    """Panoptic quality of one data set.

    Args:
        name: a registered panoptic data set.
        steps: the T step counts.
    """

    def __init__(self, name: str, steps: tuple[int, ...]):
        self.steps = steps
        self.truth = truth_records(MetadataCatalog.get(name))
        self.reset()

    def reset(self) -> None:
        # image id -> what `match` gives
        self.counts: dict[object, dict[Class, np.ndarray]] = {}

    def add(self, image_id, prediction: PredictionsByStep) -> None:
        """Count the segments of one image.

        Raises:
            ValueError: the ground truth's PNG does not fit its JSON.
        """
        truth = self.truth[image_id]
        indices, segments = segment_indices(truth), truth["segments_info"]
        overlaps, predicted = self._overlaps(prediction, indices, len(segments))
        areas = np.bincount(indices.ravel(), minlength=len(segments) + 1)[1:]
        self.counts[image_id] = match(overlaps, predicted, segments, areas)

    def _overlaps(self, prediction: PredictionsByStep, truth: np.ndarray, segments: int) -> tuple[np.ndarray, list]:
        """Pixels of each predicted segment in each true one, T x P x (G + 1), and the classes of the P."""
        owners, instances = merge_instances(prediction)
        semantic = prediction.semantic.cpu().numpy()
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
        # Class 0 of a semantic map stands for all things, which are there as instances.
        overlaps[:, stuff] = 0
        things = [(True, prediction.instances.pred_classes[n].item()) for n in instances]
        return overlaps, [None, *things, None, *((False, k) for k in range(1, predicted - stuff))]

    def results(self, counts: dict | None = None) -> dict[str, np.ndarray]:
        """PQ, SQ and RQ over all classes that occur, with suffix _th and _st over things and stuff: T each.

        In percent, not a number where no class of a group occurs.

        Args:
            counts: of several processes; default what was added here.
        """
        return group_means(total(self.counts if counts is None else counts), len(self.steps))


def merge_instances(prediction: PredictionsByStep) -> tuple[np.ndarray, list[int]]:
    """detectron2's merge of overlapping instances at all step counts together.

    Returns:
        T x H x W: k + 1 where the k-th instance of the list is, else 0; the instances by descending score.
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
