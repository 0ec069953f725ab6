"""Mask AP after several numbers of steps.

The same metrics as detectron2's COCOEvaluator at each of them: pycocotools matches and averages, but the IoUs
come from the masks directly, without run-length codes of every mask at every step count.

T: step counts; D: detections, G: true instances of one category in an image; H x W: image size.
"""

import contextlib
import io
import itertools
from collections import defaultdict

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.utils.file_io import PathManager
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from .panoptic import Part, PredictionsByStep


class MaskPrecisionByStep:
    """Mask AP of one data set.

    Args:
        name: a registered data set with `json_file`.
        steps: T step counts.
        detections: maximum number of detections of an image and category that count.
    """

    def __init__(self, name: str, steps: tuple[int, ...], detections: int = 100):
        metadata = MetadataCatalog.get(name)
        self.steps = steps
        self.detections = detections
        self.image_numbers = metadata.get("image_numbers") or {}
        self.dataset_ids = {v: k for k, v in metadata.thing_dataset_id_to_contiguous_id.items()}
        with contextlib.redirect_stdout(io.StringIO()):
            self.coco = COCO(PathManager.get_local_path(metadata.json_file))
        self.truth: dict[tuple, list[dict]] = defaultdict(list)
        for annotation in self.coco.dataset.get("annotations", []):
            ignore = annotation.get("iscrowd", 0)
            self.truth[annotation["image_id"], annotation["category_id"]].append({**annotation, "ignore": ignore})
        self.reset()

    def reset(self) -> None:
        # (image, category) -> scores of D detections, descending, and their IoUs, T x D x G
        self.found: dict[tuple, tuple[list[float], np.ndarray]] = {}

    def add(self, image_id, prediction: PredictionsByStep) -> None:
        """Compare the instances of one image with the ground truth."""
        scores = prediction.instances.scores.numpy()
        classes = prediction.instances.pred_classes.numpy()
        for k in np.unique(classes).tolist():
            of_class = np.flatnonzero(classes == k)
            order = of_class[np.argsort(-scores[of_class], kind="stable")][: self.detections]
            key = self.image_numbers.get(image_id, image_id), self.dataset_ids[k]
            pasted = [prediction.pasted[n] for n in order]
            self.found[key] = scores[order].tolist(), self._ious(self.truth.get(key, []), pasted)

    def _ious(self, truth: list[dict], pasted: list[tuple[np.ndarray, Part]]) -> np.ndarray:
        """T x D x G."""
        if not truth:
            return np.zeros((len(self.steps), len(pasted), 0))
        true = np.stack([self.coco.annToMask(annotation) for annotation in truth], axis=2).astype(bool)
        area = np.count_nonzero(true, axis=(0, 1))
        crowd = np.array([bool(annotation["ignore"]) for annotation in truth])
        return np.stack([iou(masks, true[part], area, crowd) for masks, part in pasted], axis=1)

    def results(self, found: dict) -> dict[str, np.ndarray]:
        """AP in percent at each step count, T values; NaN without any detection.

        Args:
            found: detections of all images, as `add` collects them.
        """
        if not found:
            return {"AP": np.full(len(self.steps), np.nan)}
        with contextlib.redirect_stdout(io.StringIO()):
            matching = _Matching(self.coco, self.truth, found, self.detections)
            return {"AP": np.array([matching.precision(k) for k in range(len(self.steps))])}


def iou(found: np.ndarray, true: np.ndarray, true_area: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """T x G IoUs of one detection; with a crowd, the fraction of the detection inside it.

    Args:
        found: T x h x w booleans, the detection's masks in its part of the image.
        true: h x w x G booleans in the same part.
        true_area: G, in the whole image.
        crowd: G booleans.
    """
    # Counts of pixels, exact in float32 up to 2^24.
    flat = found.reshape(len(found), -1).astype(np.float32)
    common = (flat @ true.reshape(-1, true.shape[2]).astype(np.float32)).astype(np.float64)
    area = np.count_nonzero(found, axis=(1, 2))[:, None].astype(np.float64)
    union = np.where(crowd, area, area + true_area - common)
    return common / np.where(union > 0, union, 1)


class _Matching(COCOeval):
    """COCOeval restricted to the area range and the number of detections of AP, with given IoUs."""

    def __init__(self, coco: COCO, truth: dict, found: dict, detections: int):
        super().__init__(coco, iouType="segm")
        self.params.areaRng, self.params.areaRngLbl = [[0, 1e10]], ["all"]
        self.params.maxDets = [detections]
        self.found = found
        self._gts = truth
        number = itertools.count(1)
        self._dts = defaultdict(list)
        for key, (scores, _) in found.items():
            self._dts[key] = [{"id": next(number), "score": score, "area": 0} for score in scores]

    def _prepare(self) -> None:
        """Prepare nothing: ground truth and detections are given."""

    def computeIoU(self, image_id, category_id):  # noqa: N802  (its name in COCOeval)
        if (image_id, category_id) not in self.found or not self._gts[image_id, category_id]:
            return []
        return self.found[image_id, category_id][1][self.step]

    def precision(self, step: int) -> float:
        """AP at the step count with this index."""
        self.step = step
        self.evaluate()
        self.accumulate()
        values = self.eval["precision"]
        values = values[values > -1]
        return 100 * float(values.mean()) if len(values) else np.nan
