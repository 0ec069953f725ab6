"""Scores and pictures of contour tracing.

H x W: image size; t: a number of steps.
"""

import itertools
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from torch import Tensor

from crbp_d2.data.pathfinder.mapper import load_stimulus

from .drawing import FirstPictures, file_stem, resize

SCORES = ("F1", "IoU", "precision", "recall", "balanced_accuracy")


class PathfinderEvaluator(DatasetEvaluator):
    """F1, IoU, precision, recall and balanced accuracy over the pixels of the target contour, as fractions.

    `evaluate` returns {"pathfinder": {...}}. "F1" is the mean over images, "F1_pooled" counts the pixels
    of all images together; likewise the other scores. Where outputs hold `sem_seg_by_step` (see
    StepwiseSegmentor), "F1@24" and "F1_pooled@24" are those after 24 steps, and so on.

    A score whose denominator is zero is 1 where there was nothing to find and nothing was found, else 0.

    Args:
        dataset_name: a registered data set, for the label that is ignored.
        distributed: gather the counts of all processes; otherwise those of this one are scored.
    """

    def __init__(self, dataset_name: str, distributed: bool = True):
        self.ignore_label = getattr(MetadataCatalog.get(dataset_name), "ignore_label", 255)
        self.distributed = distributed
        self.reset()

    def reset(self) -> None:
        # suffix of the scores -> image id -> (true positives, false positives, false negatives, true negatives)
        self._counts: dict[str, dict[object, np.ndarray]] = {}

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """inputs: from PathfinderDatasetMapper; outputs: `sem_seg`, 2 x H x W logits."""
        for record, output in zip(inputs, outputs, strict=True):
            target = record["sem_seg"].numpy() if "sem_seg" in record else load_stimulus(record)[1]
            predictions = {"": output["sem_seg"]}
            predictions |= {f"@{t}": logits for t, logits in output.get("sem_seg_by_step", {}).items()}
            labels = _labels(list(predictions.values()))
            if labels.shape[1:] != target.shape:
                raise ValueError(f"the prediction is {labels.shape[1:]}, but its target {target.shape}")
            for suffix, found in zip(predictions, labels == 1, strict=True):
                counts = self._counts.setdefault(suffix, {})
                counts[record.get("image_id", len(counts))] = self._count(found, target)

    def _count(self, found: np.ndarray, target: np.ndarray) -> np.ndarray:
        known, wanted = target != self.ignore_label, target == 1
        pairs = ((found, wanted), (found, ~wanted), (~found, wanted), (~found, ~wanted))
        return np.array([np.count_nonzero(a & b & known) for a, b in pairs])

    def evaluate(self) -> OrderedDict | None:
        """Results on the main process, None on the others.

        Raises:
            ValueError: nothing was evaluated.
        """
        gathered = [self._counts]
        if self.distributed:
            comm.synchronize()
            gathered = comm.gather(self._counts)
            if not comm.is_main_process():
                return None
        results = {}
        for suffix in dict.fromkeys(itertools.chain(*gathered)):
            # By image, so that one that two processes were given counts once.
            images = {k: v for counts in gathered for k, v in counts.get(suffix, {}).items()}
            counts = np.stack(list(images.values()))
            for averaged, of in (("", counts), ("_pooled", counts.sum(axis=0, keepdims=True))):
                values = scores(of)
                results.update({f"{name}{averaged}{suffix}": float(values[name].mean()) for name in SCORES})
        if not results:
            raise ValueError("PathfinderEvaluator: no image was evaluated")
        return OrderedDict(pathfinder=results)


def _labels(logits: list[Tensor]) -> np.ndarray:
    """Classes of several 2 x H x W predictions, moved to the host together.

    Raises:
        FloatingPointError: a prediction that is not finite.
    """
    stacked = torch.stack(logits)
    labels = torch.where(stacked.isfinite().all(dim=1), stacked.argmax(dim=1), -1).to(torch.int8).cpu().numpy()
    if (labels < 0).any():
        raise FloatingPointError("a prediction is not finite")
    return labels


def scores(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Each of SCORES for M rows of true positives, false positives, false negatives, true negatives: M values."""
    tp, fp, fn, tn = counts.astype(np.float64).T

    def fraction(part: np.ndarray, rest: np.ndarray) -> np.ndarray:
        whole = part + rest
        nothing = (tp + fp + fn == 0).astype(np.float64)
        return np.where(whole > 0, part / np.where(whole > 0, whole, 1), nothing)

    recall = fraction(tp, fn)
    return {
        "F1": fraction(2 * tp, fp + fn),
        "IoU": fraction(tp, fp + fn),
        "precision": fraction(tp, fp),
        "recall": recall,
        "balanced_accuracy": (recall + fraction(tn, fp)) / 2,
    }


# Colour (RGB) of the pixels found, on the dimmed stimulus.
FOUND = np.array([255, 140, 0], np.uint8)


class PathfinderPictures(FirstPictures):
    """Stimulus | target | prediction, one for each step count.

    Args:
        folder, count: see FirstPictures.
        steps: step count of the prediction `sem_seg`, for its title; None for a model without steps.
    """

    def __init__(self, folder: str, count: int = 8, steps: int | None = None):
        super().__init__(folder, count)
        self.steps = steps

    def draw(self, record: dict, output: dict) -> tuple[Path, dict[str, np.ndarray]]:
        stimulus = np.repeat(record["image"][0].numpy()[..., None], 3, axis=2)
        target = np.repeat((record["sem_seg"] == 1).numpy()[..., None], 3, axis=2) * np.uint8(255)
        panels = {"stimulus": stimulus, "target": target}
        by_step = output.get("sem_seg_by_step", {})
        if self.steps is None or self.steps not in by_step:
            name = "prediction" if self.steps is None else f"prediction, t = {self.steps}"
            panels[name] = overlay(stimulus, output["sem_seg"])
        panels |= {f"prediction, t = {t}": overlay(stimulus, logits) for t, logits in sorted(by_step.items())}
        path = self.folder / f"{file_stem(record['image_id'])}.png"
        return path, {name: resize(panel) for name, panel in panels.items()}


def overlay(stimulus: np.ndarray, logits: Tensor) -> np.ndarray:
    """The pixels of class 1 in 2 x H x W logits, on an H x W x 3 stimulus."""
    found = (logits.argmax(dim=0) == 1).cpu().numpy()[..., None]
    return np.where(found, FOUND, stimulus // 2)
