"""Stimulus, target and predictions after several step counts side by side."""

import logging
from pathlib import Path

import cv2
import numpy as np
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from torch import Tensor

from .pictures import resize, title

# The pixels found, in this colour (RGB) on the dimmed stimulus.
FOUND = np.array([255, 140, 0], np.uint8)


class PathfinderPictures(DatasetEvaluator):
    """Writes one PNG for each of the first images: stimulus | target | prediction, one for each step count.

    Args:
        folder: where the PNGs go.
        count: number of images; in a distributed evaluation those of the main process.
        steps: of the prediction `sem_seg`, for its title; None where the model has no steps.
    """

    def __init__(self, folder: str, count: int = 8, steps: int | None = None):
        self.folder = Path(folder)
        self.count = count
        self.steps = steps
        self.reset()

    def reset(self) -> None:
        self._done = 0

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        if not comm.is_main_process():
            return
        for record, output in zip(inputs, outputs, strict=True):
            if self._done < self.count:
                self._write(record, output)
                self._done += 1

    def evaluate(self) -> dict:
        if comm.is_main_process():
            logging.getLogger(__name__).info("Pictures of %d images are in %s", self._done, self.folder.resolve())
        return {}

    def _write(self, record: dict, output: dict) -> None:
        stimulus = np.repeat(record["image"][0].numpy()[..., None], 3, axis=2)
        target = np.repeat((record["sem_seg"] == 1).numpy()[..., None], 3, axis=2) * np.uint8(255)
        panels = {"stimulus": stimulus, "target": target}
        by_step = output.get("sem_seg_by_step", {})
        if self.steps is None or self.steps not in by_step:
            name = "prediction" if self.steps is None else f"prediction, t = {self.steps}"
            panels[name] = _overlay(stimulus, output["sem_seg"])
        panels |= {f"prediction, t = {t}": _overlay(stimulus, logits) for t, logits in sorted(by_step.items())}
        titled = [title(resize(panel), name) for name, panel in panels.items()]
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{record['image_id']:06d}.png"
        cv2.imwrite(str(path), np.concatenate(titled, axis=1)[..., ::-1])


def _overlay(stimulus: np.ndarray, logits: Tensor) -> np.ndarray:
    found = (logits.argmax(dim=0) == 1).cpu().numpy()[..., None]
    return np.where(found, FOUND, stimulus // 2)
