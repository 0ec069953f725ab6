"""Predictions drawn on their image, by what the model gives: panoptic segments, instances or a semantic map.

H x W: image size; K: classes.
"""

from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from detectron2.data import Metadata
from detectron2.structures import Instances
from torch import Tensor

if TYPE_CHECKING:
    from detectron2.utils.visualizer import Visualizer

# Shorter side of a panel in pixels, so that class names are readable on small images too.
PANEL_SIDE = 480
# No side is longer, whatever the shape of the image.
MOST_PIXELS = 1920


def draw_prediction(image: np.ndarray, output: dict, metadata: Metadata, score: float = 0.0) -> np.ndarray:
    """A model's output for one image, with class names, on that image at panel size.

    Args:
        image: H x W x 3 uint8 RGB.
        output: of a detectron2 model.
        metadata: with the class names that the output needs; colours and other names may be absent.
        score: least score of an instance; panoptic segments are drawn as the model chose them.

    Raises:
        ValueError: an output of none of these kinds.
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
    """detectron2's, which brings matplotlib: imported where something is drawn, as most starts draw nothing."""
    from detectron2.utils.visualizer import Visualizer

    return Visualizer(image, metadata)


def draw_segments(image: np.ndarray, segmentation: np.ndarray, segments: list[dict], metadata: Metadata) -> np.ndarray:
    """Panoptic segments: H x W ids, and of each `id`, `isthing`, `category_id` and perhaps `score`."""
    large = resize(image)
    labels = cv2.resize(segmentation.astype(np.float32), large.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    drawn = visualizer(large, metadata)
    for segment in sorted(segments, key=lambda s: s["isthing"]):
        mask = labels == segment["id"]
        if mask.any():
            kind, k = "thing" if segment["isthing"] else "stuff", segment["category_id"]
            score = f" {segment['score']:.0%}" if "score" in segment else ""
            colors = metadata.get(f"{kind}_colors")
            drawn.draw_binary_mask(
                mask,
                color=[c / 255 for c in colors[k]] if colors else None,
                text=getattr(metadata, f"{kind}_classes")[k] + score,
                alpha=0.6,
            )
    return resize(drawn.get_output().get_image(), large.shape[1::-1])


def draw_instances(image: np.ndarray, instances: Instances, metadata: Metadata, score: float = 0.0) -> np.ndarray:
    """Boxes, masks and keypoints with at least this score."""
    large = resize(image)
    kept = instances[instances.scores >= score]
    scale = large.shape[1] / image.shape[1], large.shape[0] / image.shape[0]
    scaled = Instances(large.shape[:2], scores=kept.scores, pred_classes=kept.pred_classes)
    if kept.has("pred_boxes"):
        boxes = kept.pred_boxes.clone()
        boxes.scale(*scale)
        scaled.pred_boxes = boxes
    if kept.has("pred_masks"):
        sides = large.shape[1::-1]
        masks = [
            cv2.resize(m, sides, interpolation=cv2.INTER_NEAREST) for m in kept.pred_masks.numpy().astype(np.uint8)
        ]
        scaled.pred_masks = torch.from_numpy(np.stack(masks) > 0) if masks else torch.zeros(0, *sides[::-1])
    if kept.has("pred_keypoints"):
        scaled.pred_keypoints = kept.pred_keypoints * torch.tensor([*scale, 1.0])
    drawn = visualizer(large, metadata).draw_instance_predictions(scaled)
    return resize(drawn.get_image(), large.shape[1::-1])


def draw_semantic(image: np.ndarray, classes: Tensor, metadata: Metadata) -> np.ndarray:
    """H x W classes, each under its name."""
    large = resize(image)
    labels = cv2.resize(classes.cpu().numpy().astype(np.float32), large.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    drawn = visualizer(large, metadata).draw_sem_seg(labels.astype(np.int64), area_threshold=0, alpha=0.6)
    return resize(drawn.get_image(), large.shape[1::-1])


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
