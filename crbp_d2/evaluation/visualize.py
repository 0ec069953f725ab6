"""Input, ground truth and prediction side by side."""

import logging
from abc import ABC, abstractmethod
from pathlib import Path

import cv2
import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.data.detection_utils import read_image
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from detectron2.utils.visualizer import Visualizer

from crbp_d2.data.panoptic.reader import segment_indices, truth_records

# Shorter side of a panel in pixels, so that class names are readable on small images too.
PANEL_SIDE = 480


class FirstPictures(DatasetEvaluator, ABC):
    """Writes one PNG for each of the first images of an evaluation.

    Args:
        folder: where the PNGs go.
        count: number of images; in a distributed evaluation those of the main process.
    """

    def __init__(self, folder: str, count: int = 8):
        self.folder = Path(folder)
        self.count = count
        self.reset()

    def reset(self) -> None:
        self._done = 0

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        if not comm.is_main_process():
            return
        for record, output in zip(inputs, outputs, strict=True):
            if self._done < self.count:
                self.folder.mkdir(parents=True, exist_ok=True)
                path, panels = self.draw(record, output)
                titled = [title(panel, name) for name, panel in panels.items()]
                cv2.imwrite(str(path), np.concatenate(titled, axis=1)[..., ::-1])
                self._done += 1

    def evaluate(self) -> dict:
        if comm.is_main_process():
            logging.getLogger(__name__).info("Pictures of %d images are in %s", self._done, self.folder.resolve())
        return {}

    @abstractmethod
    def draw(self, record: dict, output: dict) -> tuple[Path, dict[str, np.ndarray]]:
        """Where the picture goes, and its panels by title from left to right, each H x W x 3 uint8 RGB."""


class PanopticPictures(FirstPictures):
    """Input | ground truth | prediction, with class names.

    Args:
        name: a registered panoptic data set.
        folder, count: see FirstPictures.
    """

    def __init__(self, name: str, folder: str, count: int = 8):
        super().__init__(folder, count)
        self.metadata = MetadataCatalog.get(name)
        self._truth: dict = {}

    def draw(self, record: dict, output: dict) -> tuple[Path, dict[str, np.ndarray]]:
        image = read_image(record["file_name"], "RGB")
        truth = self._ground_truth(record["image_id"])
        annotated = [{**s, "id": k} for k, s in enumerate(truth["segments_info"], start=1)]
        prediction, segments = output["panoptic_seg"]
        panels = {
            "input": resize(image),
            "ground truth": self._draw(image, segment_indices(truth), annotated),
            "prediction": self._draw(image, prediction.cpu().numpy(), segments),
        }
        return self.folder / f"{Path(record['file_name']).stem}.png", panels

    def _ground_truth(self, image_id) -> dict:
        if not self._truth:
            self._truth = truth_records(self.metadata)
        return self._truth[image_id]

    def _draw(self, image: np.ndarray, segmentation: np.ndarray, segments: list[dict]) -> np.ndarray:
        large = resize(image)
        labels = cv2.resize(segmentation.astype(np.float32), large.shape[1::-1], interpolation=cv2.INTER_NEAREST)
        visualizer = Visualizer(large, self.metadata)
        for segment in sorted(segments, key=lambda s: s["isthing"]):
            mask = labels == segment["id"]
            if mask.any():
                kind, k = "thing" if segment["isthing"] else "stuff", segment["category_id"]
                score = f" {segment['score']:.0%}" if "score" in segment else ""
                visualizer.draw_binary_mask(
                    mask,
                    color=[c / 255 for c in getattr(self.metadata, f"{kind}_colors")[k]],
                    text=getattr(self.metadata, f"{kind}_classes")[k] + score,
                    alpha=0.6,
                )
        return resize(visualizer.get_output().get_image(), large.shape[1::-1])


def resize(image: np.ndarray, size: tuple[int, int] | None = None) -> np.ndarray:
    """To `size` (width, height), by default the one with PANEL_SIDE as its shorter side."""
    height, width = image.shape[:2]
    scale = PANEL_SIDE / min(height, width)
    size = size or (round(width * scale), round(height * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_NEAREST if scale > 1 else cv2.INTER_AREA)


def title(panel: np.ndarray, text: str) -> np.ndarray:
    """`panel` below a strip with `text`, with a white border on its right."""
    strip = np.full((34, panel.shape[1], 3), 255, np.uint8)
    cv2.putText(strip, text, (10, 24), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (0, 0, 0), 1, cv2.LINE_AA)
    bordered = np.concatenate([strip, panel])
    bordered[:, -4:] = 255
    return bordered
