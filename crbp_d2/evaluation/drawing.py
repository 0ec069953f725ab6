"""Predictions drawn on their image: panoptic segments, instances or a semantic map, whichever the model gives.

H x W: image size; K: classes.
"""

import logging
import re
from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from detectron2.data import DatasetCatalog, Metadata, MetadataCatalog
from detectron2.data.detection_utils import read_image
from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import Instances
from detectron2.utils import comm
from torch import Tensor

from crbp_d2.data.images import local, one_line
from crbp_d2.data.images import read_image as read_sized_image
from crbp_d2.data.panoptic.reader import segment_indices, truth_records

if TYPE_CHECKING:
    from detectron2.utils.visualizer import Visualizer

# Shorter side of a panel in pixels, so that class names are readable on small images too.
PANEL_SIDE = 480
# Maximum side of a panel, whatever the shape of the image.
MOST_PIXELS = 1920


def draw_prediction(image: np.ndarray, output: dict, metadata: Metadata, score: float = 0.0) -> np.ndarray:
    """A model's output for one image, with class names, on that image at panel size.

    Args:
        image: H x W x 3 uint8 RGB.
        output: a detectron2 model's output for the image.
        metadata: with the class names that the output needs; colours and other names may be absent.
        score: minimum score of an instance; panoptic segments are drawn as the model chose them.

    Raises:
        ValueError: an output of another kind.
    """
    if "panoptic_seg" in output:
        ids, segments = output["panoptic_seg"]
        if segments is None:
            return draw_semantic(image, ids // metadata.label_divisor, metadata)
        return draw_segments(image, ids.cpu().numpy(), segments, metadata)
    if "instances" in output:
        return draw_instances(image, output["instances"].to("cpu"), metadata, score)
    if "sem_seg" in output:
        return draw_semantic(image, output["sem_seg"].argmax(dim=0), metadata)
    raise ValueError(f"a prediction has {', '.join(output) or 'nothing'}: no panoptic_seg, instances or sem_seg")


def visualizer(image: np.ndarray, metadata: Metadata) -> "Visualizer":
    """detectron2's Visualizer, imported on use since it needs matplotlib."""
    from detectron2.utils.visualizer import Visualizer

    return Visualizer(image, drawable(metadata))


def drawable(metadata: Metadata) -> Metadata:
    """Metadata whose class names matplotlib draws as they are: "$" would start a formula, "" would draw nothing."""
    content = metadata.as_dict()
    for key in ("thing_classes", "stuff_classes"):
        if key in content:
            names = enumerate(content[key])
            content[key] = [re.sub(r"\\?\$", r"\\$", name) if name.strip() else f"class {k}" for k, name in names]
    return Metadata(**content)


def file_stem(image_id: object) -> str:
    """A file name for an image's id, within its folder whatever the id is."""
    return f"{image_id:06d}" if isinstance(image_id, int) else re.sub(r"[^\w.-]", "_", str(image_id))


def draw_segments(image: np.ndarray, segmentation: np.ndarray, segments: list[dict], metadata: Metadata) -> np.ndarray:
    """Panoptic segments on the image, with class names.

    Args:
        segmentation: H x W ids.
        segments: `id`, `isthing`, `category_id` and perhaps `score` of each.
    """
    large = resize(image)
    labels = _enlarged(segmentation, large)
    drawn = visualizer(large, metadata)
    for segment in sorted(segments, key=lambda s: s["isthing"]):
        mask = labels == segment["id"]
        if mask.any():
            kind, k = "thing" if segment["isthing"] else "stuff", segment["category_id"]
            score = f" {segment['score']:.0%}" if "score" in segment else ""
            colors = metadata.get(f"{kind}_colors")
            color = [c / 255 for c in colors[k]] if colors else None
            name = getattr(drawn.metadata, f"{kind}_classes")[k]
            drawn.draw_binary_mask(mask, color=color, text=name + score, alpha=0.6)
    return resize(drawn.get_output().get_image(), large.shape[1::-1])


def draw_instances(image: np.ndarray, instances: Instances, metadata: Metadata, score: float = 0.0) -> np.ndarray:
    """Boxes, masks and keypoints of the instances with at least this score."""
    large = resize(image)
    kept = instances[instances.scores >= score]
    scale = large.shape[1] / image.shape[1], large.shape[0] / image.shape[0]
    scaled = Instances(large.shape[:2], scores=kept.scores, pred_classes=kept.pred_classes)
    if kept.has("pred_boxes"):
        boxes = kept.pred_boxes.clone()
        boxes.scale(*scale)
        scaled.pred_boxes = boxes
    if kept.has("pred_masks"):
        masks = [_enlarged(mask, large) > 0 for mask in kept.pred_masks.numpy()]
        scaled.pred_masks = torch.from_numpy(np.stack(masks)) if masks else torch.zeros(0, *large.shape[:2])
    if kept.has("pred_keypoints"):
        scaled.pred_keypoints = kept.pred_keypoints * torch.tensor([*scale, 1.0])
    drawn = visualizer(large, metadata).draw_instance_predictions(scaled)
    return resize(drawn.get_image(), large.shape[1::-1])


def draw_semantic(image: np.ndarray, classes: Tensor, metadata: Metadata) -> np.ndarray:
    """H x W classes on the image, with class names."""
    large = resize(image)
    labels = _enlarged(classes.cpu().numpy(), large).astype(np.int64)
    drawn = visualizer(large, metadata).draw_sem_seg(labels, area_threshold=0, alpha=0.6)
    return resize(drawn.get_image(), large.shape[1::-1])


def _enlarged(labels: np.ndarray, large: np.ndarray) -> np.ndarray:
    """H x W labels at the size of a panel."""
    return cv2.resize(labels.astype(np.float32), large.shape[1::-1], interpolation=cv2.INTER_NEAREST)


def resize(image: np.ndarray, size: tuple[int, int] | None = None) -> np.ndarray:
    """To `size` (width, height), by default PANEL_SIDE as its shorter side, or MOST_PIXELS as its longer one."""
    height, width = image.shape[:2]
    scale = min(PANEL_SIDE / min(height, width), MOST_PIXELS / max(height, width))
    size = size or (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_NEAREST if scale > 1 else cv2.INTER_AREA)


def title(panel: np.ndarray, text: str) -> np.ndarray:
    """`panel` below a strip with `text`, with a white border on its right."""
    strip = np.full((34, panel.shape[1], 3), 255, np.uint8)
    cv2.putText(strip, text, (10, 24), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (0, 0, 0), 1, cv2.LINE_AA)
    bordered = np.concatenate([strip, panel])
    bordered[:, -4:] = 255
    return bordered


def side_by_side(panels: dict[str, np.ndarray]) -> np.ndarray:
    """Panels by title from left to right, H x W x 3 RGB of one height."""
    return np.concatenate([title(panel, name) for name, panel in panels.items()], axis=1)


# Minimum score of an instance in a picture.
SHOWN_SCORE = 0.5


class FirstPictures(DatasetEvaluator, ABC):
    """Writes one PNG for each of the first images of an evaluation, except those that cannot be drawn.

    Args:
        folder: folder of the PNGs.
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
                try:
                    self._write(record, output)
                except Exception as error:  # a picture never ends an evaluation, whatever stops it
                    image, reason = record.get("image_id"), one_line(error)
                    logging.getLogger(__name__).warning("Image %r could not be drawn: %s", image, reason)
                self._done += 1

    def _write(self, record: dict, output: dict) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        path, panels = self.draw(record, output)
        picture = cv2.imencode(".png", side_by_side(panels)[..., ::-1])[1]
        Path(local(str(self._unused(path, record.get("image_id"))))).write_bytes(picture.tobytes())

    def _unused(self, path: Path, image_id: object) -> Path:
        """`path`, with the image's id if an image of the same name in another folder was drawn before."""
        if path in self._drawn:
            path = path.with_name(f"{path.stem}_{file_stem(image_id)}{path.suffix}")
        self._drawn.add(path)
        return path

    def evaluate(self) -> dict:
        if comm.is_main_process():
            logging.getLogger(__name__).info("Pictures of %d images are in %s", self._done, self.folder.resolve())
        return {}

    @abstractmethod
    def draw(self, record: dict, output: dict) -> tuple[Path, dict[str, np.ndarray]]:
        """The path of the picture, and its panels by title from left to right, each H x W x 3 uint8 RGB."""


class CatalogPictures(FirstPictures):
    """Input | ground truth | prediction for any of detectron2's data sets, the ground truth from its catalog.

    Args:
        name: a registered data set.
        folder, count: see FirstPictures.
    """

    def __init__(self, name: str, folder: str, count: int = 8):
        super().__init__(folder, count)
        self.name = name
        self.metadata = MetadataCatalog.get(name)

    @cached_property
    def truth(self) -> dict:
        """Records of the data set, by a key of the inputs."""
        return {truth["file_name"]: truth for truth in DatasetCatalog.get(self.name)}

    def draw(self, record: dict, output: dict) -> tuple[Path, dict[str, np.ndarray]]:
        image, annotated = self._ground_truth(record, output)
        panels = {
            "input": resize(image),
            "ground truth": annotated,
            "prediction": draw_prediction(image, output, self.metadata, SHOWN_SCORE),
        }
        return self.folder / f"{Path(record['file_name']).stem}.png", panels

    def _ground_truth(self, record: dict, output: dict) -> tuple[np.ndarray, np.ndarray]:
        """The image, H x W x 3, and its annotations drawn on it, at panel size."""
        image = read_image(record["file_name"], "RGB")
        shown = ("annotations",) if "instances" in output else ("sem_seg_file_name", "sem_seg")
        truth = {key: value for key, value in self.truth[record["file_name"]].items() if key in shown}
        drawn = visualizer(image, self.metadata).draw_dataset_dict(truth).get_image()
        return image, resize(drawn, resize(image).shape[1::-1])


class PanopticPictures(CatalogPictures):
    """Input | ground truth | prediction (panoptic, or the model's own kind) for a registered panoptic data set."""

    @cached_property
    def truth(self) -> dict:
        return truth_records(self.metadata)

    def _ground_truth(self, record: dict, output: dict) -> tuple[np.ndarray, np.ndarray]:
        truth = self.truth[record["image_id"]]
        image = read_sized_image(record["file_name"], "RGB", truth["width"], truth["height"])
        annotated = [{**s, "id": k} for k, s in enumerate(truth["segments_info"], start=1)]
        return image, draw_segments(image, segment_indices(truth), annotated, self.metadata)
