"""Panoptic quality, over all classes and per class.

H x W: image size; P: predicted, G: true segments of an image.
"""

import logging
import os
from collections import OrderedDict
from collections.abc import Mapping

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from tabulate import tabulate
from torch import Tensor

from crbp_d2.data.images import local, read_json
from crbp_d2.data.panoptic.png import encode_ids, locate
from crbp_d2.data.panoptic.reader import segment_indices, truth_records
from crbp_d2.utils.files import write_json

Class = tuple[bool, int]
GROUPS = {"": (True, False), "_th": (True,), "_st": (False,)}


def match(
    overlaps: np.ndarray, predicted: list[Class | None], segments: list[dict], areas: np.ndarray
) -> dict[Class, np.ndarray]:
    """Match the segments of one image.

    Args:
        overlaps: T x P x (G + 1) pixels, those outside of all true segments first.
        predicted: classes of the P segments, None for one without a class.
        segments: the G true segments of a record.
        areas: G pixel counts of the true segments.

    Returns:
        class -> T x 4: sum of the IoUs of the matched, true positives, false positives, false negatives.
    """
    true = [(bool(segment["isthing"]), segment["category_id"]) for segment in segments]
    crowd = np.array([bool(segment["iscrowd"]) for segment in segments], bool)
    codes = {c: k for k, c in enumerate(dict.fromkeys(c for c in (*predicted, *true) if c is not None))}
    of_predicted = np.array([codes.get(c, -1) for c in predicted], int)
    of_true = np.array([codes[c] for c in true], int)
    area, void = overlaps.sum(axis=2), overlaps[:, :, 0]
    p, g = np.nonzero((of_predicted[:, None] == of_true) & overlaps[:, :, 1:].any(axis=0))
    common = overlaps[:, p, g + 1]
    iou = common / np.maximum(area[:, p] + areas[g] - common - void[:, p], 1)
    hit = (iou > 0.5) & ~crowd[g]
    matched, missed = np.zeros(area.shape, bool), np.tile(~crowd, (len(overlaps), 1))
    steps, pairs = np.nonzero(hit)
    matched[steps, p[pairs]] = True
    missed[steps, g[pairs]] = False
    # A segment that is mostly outside of annotated regions, or in the crowd of its class, is neither right nor wrong.
    ignored = void.astype(np.int64)
    last_crowd = {of_true[k]: k for k in np.flatnonzero(crowd)}
    for code, k in last_crowd.items():
        ignored[:, of_predicted == code] += overlaps[:, of_predicted == code, k + 1]
    false = (area > 0) & ~matched & (ignored <= 0.5 * area)
    found = np.zeros((len(codes), len(overlaps), 4))
    np.add.at(found[:, :, 0].T, (steps, of_true[g[pairs]]), iou[steps, pairs])
    np.add.at(found[:, :, 1].T, (steps, of_true[g[pairs]]), 1)
    for column, of_class, counted in ((2, of_predicted, false), (3, of_true, missed)):
        known = of_class >= 0
        np.add.at(found[:, :, column], of_class[known], counted[:, known].T)
    return {c: found[code] for c, code in codes.items()}


def total(images: Mapping[object, Mapping[Class, np.ndarray]]) -> dict[Class, np.ndarray]:
    """Sum of the counts of several images."""
    counts: dict[Class, np.ndarray] = {}
    for of_image in images.values():
        for c, found in of_image.items():
            counts[c] = counts[c] + found if c in counts else found
    return counts


def quality(counts: np.ndarray) -> dict[str, np.ndarray]:
    """PQ, SQ and RQ in percent from C x T x 4 counts: C x T each, NaN for a class that does not occur."""
    iou, tp, fp, fn = np.moveaxis(counts.astype(np.float64), -1, 0)
    halves = tp + (fp + fn) / 2
    occurs = np.where(halves > 0, 100.0, np.nan)
    halves, matched = np.maximum(halves, 0.5), np.maximum(tp, 1)
    return {"PQ": occurs * iou / halves, "SQ": occurs * iou / matched, "RQ": occurs * tp / halves}


def group_means(counts: Mapping[Class, np.ndarray], steps: int) -> dict[str, np.ndarray]:
    """Means over the classes that occur, with suffix _th and _st over things and stuff: T each, NaN without any."""
    results = {}
    for suffix, kinds in GROUPS.items():
        of_group = [found for (isthing, _), found in counts.items() if isthing in kinds]
        for measure, values in quality(np.array(of_group).reshape(-1, steps, 4)).items():
            number = np.count_nonzero(~np.isnan(values), axis=0)
            mean = np.nansum(values, axis=0) / np.where(number > 0, number, 1)
            results[f"{measure}{suffix}"] = np.where(number > 0, mean, np.nan)
    return results


PREDICTIONS = "panoptic_predictions"


class PanopticEvaluator(DatasetEvaluator):
    """Panoptic quality against the ground truth that training reads, paired by image id.

    `evaluate` returns {"panoptic_seg": {...}} in percent: PQ, SQ, RQ, the same with suffix _th and
    _st for things and stuff (NaN without any of them), and "PQ-name", "SQ-name", "RQ-name" of every class that
    occurs.

    Args:
        name: a registered panoptic data set.
        output_dir: folder for panoptic_predictions.json, in COCO-panoptic format, and for its PNGs, named like those
            of the ground truth; None for neither.
    """

    def __init__(self, name: str, output_dir: str | None = None):
        self.metadata = MetadataCatalog.get(name)
        self.truth = truth_records(self.metadata)
        self.output_dir = output_dir
        self.reset()

    def reset(self) -> None:
        # image id -> result of `match`, and the predicted annotation
        self._counts: dict[object, dict[Class, np.ndarray]] = {}
        self._annotations: dict[object, dict] = {}

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """inputs: with `image_id`; outputs: with `panoptic_seg`, H x W ids and their segments.

        Raises:
            ValueError: an image that is not in the ground truth, or a prediction of another size.
        """
        for record, output in zip(inputs, outputs, strict=True):
            image_id = record["image_id"]
            if image_id not in self.truth:
                raise ValueError(f"{self.metadata.panoptic_json} has no annotation of image {image_id!r}")
            truth = self.truth[image_id]
            of_model, of_segments = output["panoptic_seg"]
            ids, segments = _prediction(of_model, of_segments, self.metadata)
            self._counts[image_id] = count(ids, segments, truth)
            if self.output_dir:
                self._annotations[image_id] = self._write(ids, segments, truth)

    def _write(self, ids: np.ndarray, segments: list[dict], truth: dict) -> dict:
        name = os.path.relpath(truth["pan_seg_file_name"], self.metadata.panoptic_root)
        path = os.path.join(self.output_dir, PREDICTIONS, name)
        PathManager.mkdirs(local(os.path.dirname(path)))
        with PathManager.open(local(path), "wb") as file:
            file.write(encode_ids(ids))
        things, stuff = (
            {v: k for k, v in getattr(self.metadata, f"{kind}_dataset_id_to_contiguous_id").items()}
            for kind in ("thing", "stuff")
        )
        return {
            "image_id": truth["image_id"],
            "file_name": name,
            "segments_info": [
                {"id": s["id"], "category_id": (things if s["isthing"] else stuff)[s["category_id"]]} for s in segments
            ],
        }

    def evaluate(self) -> OrderedDict | None:
        """Results on the main process, None on the others.

        Raises:
            ValueError: an annotated image of the data set has no prediction.
        """
        comm.synchronize()
        gathered = comm.gather((self._counts, self._annotations))
        if not comm.is_main_process():
            return None
        counts = {image_id: found for part, _ in gathered for image_id, found in part.items()}
        annotations = {image_id: annotation for _, part in gathered for image_id, annotation in part.items()}
        if missing := [image_id for image_id in self.truth if image_id not in counts]:
            raise ValueError(
                f"{len(missing)} of {len(self.truth)} images of {self.metadata.panoptic_json} have no prediction, "
                f"for instance {missing[0]!r}: panoptic quality needs all of them"
            )
        if self.output_dir:
            truth = read_json(self.metadata.panoptic_json)
            predictions = {**truth, "annotations": [annotations[image_id] for image_id in self.truth]}
            write_json(os.path.join(self.output_dir, f"{PREDICTIONS}.json"), predictions)
        return OrderedDict(panoptic_seg=self._results(total(counts)))

    def _results(self, counts: dict[Class, np.ndarray]) -> dict[str, float]:
        results = {name: float(values[0]) for name, values in group_means(counts, 1).items()}
        rows = []
        for isthing, kind in ((True, "thing"), (False, "stuff")):
            for k, name in enumerate(getattr(self.metadata, f"{kind}_classes")):
                of_class = quality(counts.get((isthing, k), np.zeros((1, 4)))[None])
                if not np.isnan(of_class["PQ"]).any():
                    metrics = {measure: float(value[0, 0]) for measure, value in of_class.items()}
                    results.update({f"{measure}-{name}": value for measure, value in metrics.items()})
                    rows.append([name, *metrics.values()])
        table = tabulate(rows, headers=["class", "PQ", "SQ", "RQ"], tablefmt="pipe", floatfmt=".1f")
        logging.getLogger(__name__).info("Panoptic quality of the classes that occur:\n%s", table)
        return results


def count(ids: np.ndarray, segments: list[dict], truth: dict) -> dict[Class, np.ndarray]:
    """The result of `match` for one prediction, H x W ids and its P segments, and the record of an image."""
    true = segment_indices(truth)
    if ids.shape != true.shape:
        raise ValueError(f"the prediction of image {truth['image_id']!r} is {ids.shape}, but its PNG {true.shape}")
    found, unknown, _ = locate(ids, [segment["id"] for segment in segments])
    if len(unknown):
        raise ValueError(
            f"the prediction of image {truth['image_id']!r} has pixels of {unknown[0]}, an unlisted segment"
        )
    size = len(segments) + 1, len(truth["segments_info"]) + 1
    both = found.astype(np.int64) * size[1] + true
    overlaps = np.bincount(both.ravel(), minlength=size[0] * size[1]).reshape(size)
    predicted = [(bool(segment["isthing"]), segment["category_id"]) for segment in segments]
    return match(overlaps[None, 1:], predicted, truth["segments_info"], overlaps.sum(axis=0)[1:])


def _prediction(ids: Tensor, segments: list[dict] | None, metadata) -> tuple[np.ndarray, list[dict]]:
    """H x W ids, 0 for void, and segments, from either form that detectron2's models give."""
    ids = ids.cpu().numpy().astype(np.int64)
    if segments is None:
        # class * label_divisor + number of the instance, -1 for void
        things = set(metadata.thing_dataset_id_to_contiguous_id.values())
        classes = {label: label // metadata.label_divisor for label in np.unique(ids).tolist() if label >= 0}
        segments = [{"id": label + 1, "category_id": k, "isthing": k in things} for label, k in classes.items()]
        ids = ids + 1
    return ids, segments
