"""A stimulus and the predictions of several rules over the steps, as small pictures and as a figure.

N: steps trained with.
"""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from numpy import ndarray
from torch import nn

import crbp_d2.modeling  # noqa: F401  (registers the models)
from crbp_d2.config import add_crbp_config
from crbp_d2.data import generate_pathfinder
from crbp_d2.data.pathfinder.dataset import SPLIT_SEEDS
from crbp_d2.evaluation.pathfinder import FOUND, scores
from crbp_d2.evaluation.per_step.record import StepwiseSegmentor

from .figure_style import Drawing, name_of, panels
from .predicates import LONGER, TRAINED
from .records import Record, Study

RUNS = ("hgru_bptt", "hgru_crbp", "hgru_progressive_far")
# Steps of the trace over one long contour.
TRACE = (1, 3, 6, 12, 24, 48, 96)
# Batch norm takes its statistics from the batch, so that the stimulus is one of several.
BATCH = 16


@dataclass(frozen=True)
class Unrolled:
    """PNGs of a run's prediction after 1, 2, ... steps, and the F1 of each."""

    run: str
    trained: int
    frames: list[bytes]
    f1: list[float]


@dataclass(frozen=True)
class Unrolling:
    """The first validation stimulus and its target as PNGs, and the runs' predictions, of equal number."""

    spec: str
    stimulus: bytes
    target: bytes
    runs: list[Unrolled]


def shown_records(study: Study, root: Path) -> list[Record]:
    """The first seed of each of RUNS whose checkpoint exists."""
    first = [study.first(run) for run in RUNS]
    return [record for record in first if record and record.checkpoint and (root / record.checkpoint).exists()]


def unroll(study: Study, root: Path) -> Unrolling | None:
    """Predictions up to the maximum 4 N of RUNS; None without a checkpoint.

    Args:
        root: repository root of configs and checkpoints.

    Raises:
        ValueError: a checkpoint that does not fit its config.
    """
    records = shown_records(study, root)
    if not records:
        return None
    images, targets = generate_pathfinder(TRAINED, BATCH, (0, SPLIT_SEEDS["val"]))
    steps = tuple(range(1, max(record.far for record in records) + 1))
    runs = []
    for record in records:
        found = probabilities(load_model(record, root), images, steps)
        frames = [_png(overlay(images[0], p)) for p in found]
        runs.append(Unrolled(record.run, record.steps, frames, [f1_of(p > 0.5, targets[0]) for p in found]))
    return Unrolling(TRAINED, _png(_grey(images[0])), _png(_grey(targets[0] * np.uint8(255))), runs)


def trace(study: Study, root: Path) -> Drawing | None:
    """The prediction on one long contour after each of TRACE steps, a row a rule."""
    records = shown_records(study, root)
    if not records:
        return None
    images, targets = generate_pathfinder(LONGER[-1], BATCH, (0, SPLIT_SEEDS["val"]))
    figure, axes = panels(len(records), len(TRACE) + 1)
    figure.set_size_inches(1.5 * (len(TRACE) + 1), 1.75 * len(records))
    rows = []
    for line, record in zip(axes, records, strict=True):
        line[0].imshow(np.where(targets[0] == 1, 255, images[0] // 3), cmap="gray", vmin=0, vmax=255)
        line[0].set_ylabel(name_of(record.run), fontsize=9)
        found = probabilities(load_model(record, root), images, TRACE)
        for axis, t, probability in zip(line[1:], TRACE, found, strict=True):
            score = f1_of(probability > 0.5, targets[0])
            axis.imshow(overlay(images[0], probability))
            axis.set_xlabel(f"F1 {score:.2f}", fontsize=9)
            rows.append([record.run, record.steps, t, score])
    for axis, title in zip(axes[0], ("target", *(f"t = {t}" for t in TRACE)), strict=True):
        axis.set_title(title, fontsize=9)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.grid(False)
    return Drawing(figure, ["run", "N", "t", "F1"], rows)


def build(record: Record, root: Path) -> nn.Module:
    """The model of a record's config and options, with random weights on the CPU."""
    cfg = get_cfg()
    add_crbp_config(cfg)
    cfg.merge_from_file(str(root / record.config))
    # Direct convolutions, so that results do not depend on the measured speed of others.
    cfg.merge_from_list([*record.options, "MODEL.DEVICE", "cpu", "MODEL.RECURRENCE.CELL.CONVOLUTION", "direct"])
    return build_model(cfg)


def load_model(record: Record, root: Path) -> nn.Module:
    """The trained model of a record, in evaluation mode.

    Raises:
        ValueError: a checkpoint that does not fit its config.
    """
    model = build(record, root)
    content = torch.load(root / record.checkpoint, map_location="cpu", weights_only=True)
    try:
        model.load_state_dict(content.get("model", content))
    except RuntimeError as error:
        message = " ".join(str(error).split())
        raise ValueError(
            f"{record.checkpoint} does not fit {record.config} with {record.options}: {message}"
        ) from error
    return model.eval()


@torch.no_grad()
def probabilities(model: nn.Module, images: ndarray, steps: tuple[int, ...]) -> list[ndarray]:
    """The target's probability in the first image, H x W, after each step."""
    side = {"height": images.shape[1], "width": images.shape[2]}
    inputs = [{"image": torch.from_numpy(image[None].copy()), **side} for image in images]
    by_step = StepwiseSegmentor(model, steps)(inputs)[0]["sem_seg_by_step"]
    return [by_step[t].softmax(dim=0)[1].numpy() for t in steps]


def overlay(stimulus: ndarray, probability: ndarray) -> ndarray:
    """The target's probability in colour on a dimmed stimulus: H x W x 3."""
    weight = np.nan_to_num(probability)[..., None]
    return ((1 - weight) * _grey(stimulus // 2) + weight * FOUND).astype(np.uint8)


def _grey(image: ndarray) -> ndarray:
    return np.repeat(image[..., None], 3, axis=2)


def f1_of(found: ndarray, wanted: ndarray) -> float:
    """F1 of one prediction, both H x W."""
    wanted = wanted == 1
    counts = [(a & b).sum() for a, b in ((found, wanted), (found, ~wanted), (~found, wanted), (~found, ~wanted))]
    return float(scores(np.array([counts]))["F1"][0])


def _png(image: ndarray) -> bytes:
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()
