"""Input, ground truth and prediction side by side."""

import logging
from abc import ABC, abstractmethod
from pathlib import Path

import cv2
import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.detection_utils import read_image
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from crbp_d2.data.images import read_image as read_sized_image
from crbp_d2.data.opening import local
from crbp_d2.data.panoptic.reader import segment_indices, truth_records

from .drawing import draw_prediction, draw_segments, resize, side_by_side, visualizer

# Least score of an instance in a picture.
SHOWN_SCORE = 0.5


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
        self._drawn: set[Path] = set()

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        if not comm.is_main_process():
            return
        for record, output in zip(inputs, outputs, strict=True):
            if self._done < self.count:
                self.folder.mkdir(parents=True, exist_ok=True)
                path, panels = self.draw(record, output)
                picture = cv2.imencode(".png", side_by_side(panels)[..., ::-1])[1]
                Path(local(str(self._unused(path, record.get("image_id"))))).write_bytes(picture.tobytes())
                self._done += 1

    def _unused(self, path: Path, image_id: object) -> Path:
        """`path`, with the image's id where one of the same name in another folder was drawn before."""
        if path in self._drawn:
            path = path.with_name(f"{path.stem}_{image_id}{path.suffix}")
        self._drawn.add(path)
        return path

    def evaluate(self) -> dict:
        if comm.is_main_process():
            logging.getLogger(__name__).info("Pictures of %d images are in %s", self._done, self.folder.resolve())
        return {}

    @abstractmethod
    def draw(self, record: dict, output: dict) -> tuple[Path, dict[str, np.ndarray]]:
        """Where the picture goes, and its panels by title from left to right, each H x W x 3 uint8 RGB."""


class PanopticPictures(FirstPictures):
    """Input | ground truth | prediction (panoptic, or what the model predicts instead), with class names.

    Args:
        name: a registered panoptic data set.
        folder, count: see FirstPictures.
    """

    def __init__(self, name: str, folder: str, count: int = 8):
        super().__init__(folder, count)
        self.metadata = MetadataCatalog.get(name)
        self._truth: dict = {}

    def draw(self, record: dict, output: dict) -> tuple[Path, dict[str, np.ndarray]]:
        truth = self._ground_truth(record["image_id"])
        image = read_sized_image(record["file_name"], "RGB", truth["width"], truth["height"])
        annotated = [{**s, "id": k} for k, s in enumerate(truth["segments_info"], start=1)]
        panels = {
            "input": resize(image),
            "ground truth": draw_segments(image, segment_indices(truth), annotated, self.metadata),
            "prediction": draw_prediction(image, output, self.metadata, SHOWN_SCORE),
        }
        return self.folder / f"{Path(record['file_name']).stem}.png", panels

    def _ground_truth(self, image_id) -> dict:
        if not self._truth:
            self._truth = truth_records(self.metadata)
        return self._truth[image_id]


class CatalogPictures(FirstPictures):
    """Input | ground truth | prediction of any of detectron2's data sets, the ground truth as its catalog gives it.

    Args:
        name: a registered data set.
        folder, count: see FirstPictures.
    """

    def __init__(self, name: str, folder: str, count: int = 8):
        super().__init__(folder, count)
        self.name = name
        self.metadata = MetadataCatalog.get(name)
        self._truth: dict[str, dict] = {}

    def draw(self, record: dict, output: dict) -> tuple[Path, dict[str, np.ndarray]]:
        image = read_image(record["file_name"], "RGB")
        if not self._truth:
            self._truth = {truth["file_name"]: truth for truth in DatasetCatalog.get(self.name)}
        shown = ("annotations",) if "instances" in output else ("sem_seg_file_name", "sem_seg")
        truth = {key: value for key, value in self._truth[record["file_name"]].items() if key in shown}
        large = resize(image)
        drawn = visualizer(image, self.metadata).draw_dataset_dict(truth).get_image()
        panels = {
            "input": large,
            "ground truth": resize(drawn, large.shape[1::-1]),
            "prediction": draw_prediction(image, output, self.metadata, SHOWN_SCORE),
        }
        return self.folder / f"{Path(record['file_name']).stem}.png", panels
