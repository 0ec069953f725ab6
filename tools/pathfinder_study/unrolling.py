"""One stimulus and how the predictions of two rules go on over the steps, as small pictures.

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

from .comparisons import TRAINED
from .records import Record, Study

RUNS = ("hgru_bptt", "hgru_crbp", "hgru_progressive")
# The norms take their statistics from the batch, so that the stimulus is shown to the model among others.
BATCH = 16


@dataclass(frozen=True)
class Unrolled:
    """Of one run: PNGs of its prediction after 1, 2, ... steps, and the F1 of each."""

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


def unroll(study: Study, root: Path, earlier: Study | None = None) -> Unrolling | None:
    """Predictions up to the greatest 4 N of RUNS; None where no run has its checkpoint.

    Args:
        earlier: stands in for runs that have no record in `study`.
        root: that configs and checkpoints are found from.

    Raises:
        ValueError: a checkpoint that does not fit its config.
    """
    first = [study.first(run) or (earlier and earlier.first(run)) for run in RUNS]
    records = [record for record in first if record and record.checkpoint and (root / record.checkpoint).exists()]
    if not records:
        return None
    spec = TRAINED
    images, targets = generate_pathfinder(spec, BATCH, (0, SPLIT_SEEDS["val"]))
    steps = tuple(range(1, max(record.far for record in records) + 1))
    runs = []
    for record in records:
        found = probabilities(load_model(record, root), images, steps)
        frames = [_png(overlay(images[0], p)) for p in found]
        runs.append(Unrolled(record.run, record.steps, frames, [f1_of(p > 0.5, targets[0]) for p in found]))
    return Unrolling(spec, _png(_grey(images[0])), _png(_grey(targets[0] * np.uint8(255))), runs)


def load_model(record: Record, root: Path) -> nn.Module:
    """The trained model of a record, in evaluation mode on the CPU.

    Raises:
        ValueError: a checkpoint that does not fit its config.
    """
    cfg = get_cfg()
    add_crbp_config(cfg)
    cfg.merge_from_file(str(root / record.config))
    # One way of computing the convolutions, so that the pictures do not depend on which is fastest.
    cfg.merge_from_list([*record.options, "MODEL.DEVICE", "cpu", "MODEL.RECURRENCE.CELL.CONVOLUTION", "direct"])
    model = build_model(cfg)
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
    """Of the target in the first image, H x W, after each step."""
    side = {"height": images.shape[1], "width": images.shape[2]}
    inputs = [{"image": torch.from_numpy(image[None].copy()), **side} for image in images]
    by_step = StepwiseSegmentor(model, steps)(inputs)[0]["sem_seg_by_step"]
    return [by_step[t].softmax(dim=0)[1].numpy() for t in steps]


def overlay(stimulus: ndarray, probability: ndarray) -> ndarray:
    """The target's probability in colour on a dimmed stimulus: H x W x 3."""
    share = np.nan_to_num(probability)[..., None]
    return ((1 - share) * _grey(stimulus // 2) + share * FOUND).astype(np.uint8)


def _grey(image: ndarray) -> ndarray:
    return np.repeat(image[..., None], 3, axis=2)


def f1_of(found: ndarray, wanted: ndarray) -> float:
    """F1 of one prediction, both H x W."""
    wanted = wanted == 1
    counts = [(a & b).sum() for a, b in ((found, wanted), (found, ~wanted), (~found, wanted), (~found, ~wanted))]
    return float(scores(np.array([counts]))["F1"][0])


def _png(image: ndarray) -> bytes:
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()
