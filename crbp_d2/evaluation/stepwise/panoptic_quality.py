"""Panoptic quality after several numbers of steps, counted in memory.

The same figures as panopticapi's pq_compute (Kirillov et al. 2019) on detectron2's merge of each step count,
without a PNG for each: what does not depend on the steps is worked out once.

T: step counts; H x W: image size; P: predicted, G: true segments of an image; C: categories.
"""

import json
from collections import Counter

import numpy as np
import torch
from detectron2.data import MetadataCatalog
from detectron2.utils.file_io import PathManager

from crbp_d2.data.panoptic.dataset import segment_indices

from .panoptic import PredictionsByStep

GROUPS = {"": (0, 1), "_th": (1,), "_st": (0,)}
# Counters that are filled at a time, for the memory of large images.
CHUNK = 2**21


class PanopticQualityByStep:
    """Panoptic quality of one data set.

    Args:
        name: a registered panoptic data set.
        steps: the T step counts.
    """

    def __init__(self, name: str, steps: tuple[int, ...]):
        metadata = MetadataCatalog.get(name)
        self.steps = steps
        self.root = PathManager.get_local_path(metadata.panoptic_root)
        self.things = {v: k for k, v in metadata.thing_dataset_id_to_contiguous_id.items()}
        self.stuff = {v: k for k, v in metadata.stuff_dataset_id_to_contiguous_id.items()}
        with PathManager.open(metadata.panoptic_json) as file:
            truth = json.load(file)
        self.categories = {category["id"]: category["isthing"] for category in truth["categories"]}
        self.images = {image["id"]: image for image in truth["images"]}
        self.annotations = {annotation["image_id"]: annotation for annotation in truth["annotations"]}
        self.reset()

    def reset(self) -> None:
        # category -> T x 4: sum of the IoUs of the matched, true positives, false positives, false negatives
        self.counts: Counter = Counter()

    def add(self, image_id, prediction: PredictionsByStep) -> None:
        """Count the segments of one image.

        Raises:
            ValueError: the ground truth's PNG does not fit its JSON.
        """
        annotation, image = self.annotations[image_id], self.images[image_id]
        segments = annotation["segments_info"]
        indices = segment_indices(
            {"pan_seg_file_name": f"{self.root}/{annotation['file_name']}", "segments_info": segments,
             "height": image["height"], "width": image["width"]}
        )  # fmt: skip
        overlaps, predicted = self._overlaps(prediction, indices, len(segments))
        for category, found in match(overlaps, predicted, segments).items():
            self.counts[category] = self.counts[category] + found

    def _overlaps(self, prediction: PredictionsByStep, truth: np.ndarray, segments: int) -> tuple[np.ndarray, list]:
        """Pixels of each predicted segment in each true one, T x P x (G + 1), and the categories of the P."""
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
        things = [self.things[prediction.instances.pred_classes[n].item()] for n in instances]
        return overlaps, [None, *things, None, *(self.stuff[k] for k in range(1, predicted - stuff))]

    def results(self) -> dict[str, np.ndarray]:
        """PQ, SQ and RQ over all categories that occur, with suffix _th and _st over things and stuff: T each.

        In percent, not a number where no category of a group occurs.
        """
        results = {}
        for suffix, kinds in GROUPS.items():
            of_group = [found for category, found in self.counts.items() if self.categories[category] in kinds]
            counts = np.stack(of_group) if of_group else np.zeros((0, len(self.steps), 4))  # C x T x 4
            iou, hits, false_alarms, misses = np.moveaxis(counts, 2, 0)
            halves = hits + (false_alarms + misses) / 2
            occurs = np.where(halves > 0, 1, np.nan)
            halves, matched = np.maximum(halves, 0.5), np.maximum(hits, 1)
            for measure, values in {"PQ": iou / halves, "SQ": iou / matched, "RQ": hits / halves}.items():
                number = np.nansum(occurs, axis=0)
                mean = np.nansum(values * occurs, axis=0) / np.where(number > 0, number, np.nan)
                results[f"{measure}{suffix}"] = 100 * mean
        return results


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
        below = owners[(slice(None), *part)]
        area = np.count_nonzero(masks, axis=(1, 2))
        free = masks & (below == 0)
        covered = area - np.count_nonzero(free, axis=(1, 2))
        kept = (area > 0) & (covered / np.maximum(area, 1) <= limits.overlap)
        below[free & kept[:, None, None]] = k
    return owners, instances


def match(overlaps: np.ndarray, predicted: list, segments: list[dict]) -> dict[int, np.ndarray]:
    """Count one image.

    Args:
        overlaps: T x P x (G + 1) pixels, those of no true segment first.
        predicted: the categories of the P segments, None for what is none.
        segments: the `segments_info` of the G true ones.

    Returns:
        category -> T x 4, see PanopticQualityByStep.
    """
    found = {category: np.zeros((len(overlaps), 4)) for category in predicted if category is not None}
    found |= {segment["category_id"]: np.zeros((len(overlaps), 4)) for segment in segments}
    missed = np.ones((len(segments), len(overlaps)), bool)
    for p, category in enumerate(predicted):
        area = overlaps[:, p].sum(axis=1)
        if not area.any():
            continue
        void = overlaps[:, p, 0]
        matched, crowd = np.zeros(len(area), bool), 0
        for g, segment in enumerate(segments):
            if segment["category_id"] != category:
                continue
            common = overlaps[:, p, g + 1]
            if segment["iscrowd"]:
                crowd = common
                continue
            iou = common / np.maximum(area + segment["area"] - common - void, 1)
            hit = iou > 0.5
            found[category][:, 0] += np.where(hit, iou, 0)
            found[category][:, 1] += hit
            missed[g] &= ~hit
            matched |= hit
        # A segment that lies mostly where nothing is annotated, or in a crowd, is neither right nor wrong.
        ignored = void + crowd > 0.5 * area
        found[category][:, 2] += (area > 0) & ~matched & ~ignored
    for segment, times in zip(segments, missed, strict=True):
        if not segment["iscrowd"]:
            found[segment["category_id"]][:, 3] += times
    return found
