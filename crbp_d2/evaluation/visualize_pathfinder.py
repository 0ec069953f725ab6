"""Stimulus, target and predictions after several step counts side by side."""

from pathlib import Path

import numpy as np
from torch import Tensor

from .drawing import resize
from .visualize import FirstPictures

# The pixels found, in this colour (RGB) on the dimmed stimulus.
FOUND = np.array([255, 140, 0], np.uint8)


class PathfinderPictures(FirstPictures):
    """Stimulus | target | prediction, one for each step count.

    Args:
        folder, count: see FirstPictures.
        steps: of the prediction `sem_seg`, for its title; None where the model has no steps.
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
        number = record["image_id"]
        path = self.folder / (f"{number:06d}.png" if isinstance(number, int) else f"{number}.png")
        return path, {name: resize(panel) for name, panel in panels.items()}


def overlay(stimulus: np.ndarray, logits: Tensor) -> np.ndarray:
    found = (logits.argmax(dim=0) == 1).cpu().numpy()[..., None]
    return np.where(found, FOUND, stimulus // 2)
