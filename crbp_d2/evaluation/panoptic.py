"""Panoptic quality, also per class.

H x W: image size; P: predicted, G: true segments of an image.
"""

import json
import logging
import os
from collections import OrderedDict

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from tabulate import tabulate
from torch import Tensor

from crbp_d2.data.images import encode_ids
from crbp_d2.data.opening import local, read_json
from crbp_d2.data.panoptic.reader import locate, segment_indices, truth_records
from crbp_d2.files import write_text

from .quality import Class, group_means, match, quality, total

PREDICTIONS = "panoptic_predictions"


class PanopticEvaluator(DatasetEvaluator):
    """Panoptic quality against the ground truth that training reads, paired by image id.

    `evaluate` returns {"panoptic_seg": {...}} in percent: PQ, SQ, RQ, the same with suffix _th and
    _st for things and stuff (not a number without any of them), and "PQ-name", "SQ-name", "RQ-name" of every class
    that occurs.

    Args:
        name: a registered panoptic data set.
        output_dir: where panoptic_predictions.json goes, in COCO-panoptic format, and the folder of its PNGs, named
            like those of the ground truth; None for neither.
    """

    def __init__(self, name: str, output_dir: str | None = None):
        self.metadata = MetadataCatalog.get(name)
        self.truth = truth_records(self.metadata)
        self.output_dir = output_dir
        self.reset()

    def reset(self) -> None:
        # image id -> what `match` gives, and the predicted annotation
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
            write_text(os.path.join(self.output_dir, f"{PREDICTIONS}.json"), json.dumps(predictions))
        return OrderedDict(panoptic_seg=self._results(total(counts)))

    def _results(self, counts: dict[Class, np.ndarray]) -> dict[str, float]:
        results = {name: float(values[0]) for name, values in group_means(counts, 1).items()}
        rows = []
        for isthing, kind in ((True, "thing"), (False, "stuff")):
            for k, name in enumerate(getattr(self.metadata, f"{kind}_classes")):
                of_class = quality(counts.get((isthing, k), np.zeros((1, 4)))[None])
                if not np.isnan(of_class["PQ"]).any():
                    figures = {measure: float(value[0, 0]) for measure, value in of_class.items()}
                    results.update({f"{measure}-{name}": value for measure, value in figures.items()})
                    rows.append([name, *figures.values()])
        table = tabulate(rows, headers=["class", "PQ", "SQ", "RQ"], tablefmt="pipe", floatfmt=".1f")
        logging.getLogger(__name__).info("Panoptic quality of the classes that occur:\n%s", table)
        return results


def count(ids: np.ndarray, segments: list[dict], truth: dict) -> dict[Class, np.ndarray]:
    """What `match` gives for one prediction, H x W ids and its P segments, and the record of an image."""
    true = segment_indices(truth)
    if ids.shape != true.shape:
        raise ValueError(f"the prediction of image {truth['image_id']!r} is {ids.shape}, but its PNG {true.shape}")
    found, unknown, _ = locate(ids, [segment["id"] for segment in segments])
    if len(unknown):
        raise ValueError(
            f"the prediction of image {truth['image_id']!r} has pixels of {unknown[0]}, which is no segment"
        )
    size = len(segments) + 1, len(truth["segments_info"]) + 1
    both = found.astype(np.int64) * size[1] + true
    overlaps = np.bincount(both.ravel(), minlength=size[0] * size[1]).reshape(size)
    predicted = [(bool(segment["isthing"]), segment["category_id"]) for segment in segments]
    return match(overlaps[None, 1:], predicted, truth["segments_info"], overlaps.sum(axis=0)[1:])


def _prediction(ids: Tensor, segments: list[dict] | None, metadata) -> tuple[np.ndarray, list[dict]]:
    """H x W ids, 0 for void, and segments, of either form in which detectron2's models give them."""
    ids = ids.cpu().numpy().astype(np.int64)
    if segments is None:
        # class * label_divisor + number of the instance, -1 for void
        things = set(metadata.thing_dataset_id_to_contiguous_id.values())
        classes = {label: label // metadata.label_divisor for label in np.unique(ids).tolist() if label >= 0}
        segments = [{"id": label + 1, "category_id": k, "isthing": k in things} for label, k in classes.items()]
        ids = ids + 1
    return ids, segments
