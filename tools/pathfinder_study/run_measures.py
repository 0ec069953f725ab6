"""Measurements of a trained contour model past its trained steps, as plain numbers for JSON, and their stimuli.

N: trained steps; T = 4 N: steps whose states are looked at; C: channels; H x W: image size.
"""

import math
from collections.abc import Iterable

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.evaluation import inference_on_dataset
from torch import Tensor, nn

from crbp_d2.data import register_builtin, register_pathfinder
from crbp_d2.engine.loaders import build_test_loader
from crbp_d2.evaluation import PathfinderEvaluator, StepwiseSegmentor
from crbp_d2.recurrence.diagnostics import contraction, lipschitz_coefficient, residuals, spectral_radius, trajectory
from crbp_d2.recurrence.state import relative_change

# Multiples of N up to which states are followed, and quality and residual.
FACTOR, LONGEST = 4, 16
# Stimuli whose spectral radius is computed, each by an Arnoldi iteration of some hundred Jacobian products.
RADII = 4
DIGITS = 5


def held_out_set(spec: str, count: int, seed: int | None) -> str:
    """The name of a registered set of `count` stimuli of a seed; None: the spec's own validation set."""
    if seed is None:
        register_builtin()
        return f"pathfinder_{spec}_val"
    name = f"{spec}_seed{seed}"
    if f"pathfinder_{name}_val" not in DatasetCatalog.list():
        register_pathfinder(spec, name, num_val=count, seed=seed)
    return f"pathfinder_{name}_val"


def first_batches(cfg: CfgNode, name: str, count: int) -> list[list[dict]]:
    """The first `count` stimuli of a data set, in batches of TEST.IMS_PER_BATCH."""
    batches: list[list[dict]] = []
    for batch in build_test_loader(cfg, name):
        batches.append(batch)
        if len(batches) * cfg.TEST.IMS_PER_BATCH >= count:
            break
    return batches


def quality_by_step(model: nn.Module, loader: Iterable, name: str, steps: tuple[int, ...]) -> list[float]:
    """F1 on a data set after each of the given steps; a model without steps gets none and has one F1.

    F1 is nan from the first step on at which predictions are not finite.

    Args:
        model: SemanticSegmentor with a contour head.
        loader: iterable that can be repeated.
        name: the loader's data set.
        steps: increasing numbers of steps.
    """
    try:
        return _scores(model, loader, name, steps)
    except FloatingPointError:
        if not steps:
            return [math.nan]
    # States stay non-finite from there on, so that bisection finds the last finite step.
    found, low, high = [], 0, len(steps)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            found, low = _scores(model, loader, name, steps[:middle]), middle
        except FloatingPointError:
            high = middle
    return found + [math.nan] * (len(steps) - low)


def _scores(model: nn.Module, loader: Iterable, name: str, steps: tuple[int, ...]) -> list[float]:
    results = inference_on_dataset(StepwiseSegmentor(model, steps).eval(), loader, PathfinderEvaluator(name, False))
    scores = results["pathfinder"]
    return [round(scores[f"F1@{t}"], DIGITS) for t in steps] if steps else [round(scores["F1"], DIGITS)]


@torch.no_grad()
def drive_of(model: nn.Module, records: list[dict]) -> Tensor:
    """The stem's features of some stimuli, the drive of the recurrence: one batch, N x C x H x W."""
    images = torch.stack(
        [(record["image"].to(model.device) - model.pixel_mean) / model.pixel_std for record in records]
    )
    return model.backbone(images)["stem"]


def probe(model: nn.Module, batches: list[list[dict]], name: str, steps: int) -> dict[str, float]:
    """A short test of a model in training; `steps` = N.

    Returns:
        f1 and f1_far: after N and T steps on all batches, nan where predictions are not finite; penalty: the
        unweighted Lipschitz coefficient penalty at h_N, residual: the median at h_N, both on the first batch.
    """
    f1, f1_far = quality_by_step(model, batches, name, (steps, FACTOR * steps))
    cell, drive = model.sem_seg_head.recurrence.cell, drive_of(model, batches[0])
    *_, previous, state = trajectory(cell, drive, steps)
    residual = relative_change(previous, state).median().item()
    return {"f1": f1, "f1_far": f1_far, "penalty": lipschitz_coefficient(cell, drive, state), "residual": residual}


def stability(cell: nn.Module, drive: Tensor, steps: int) -> dict:
    """Stability of the cell's plain run around and after `steps` = N.

    Returns:
        stimuli; penalty and penalty_far: the Lipschitz coefficient penalty, unweighted, at h_N and h_T;
        spectral_radius: at h_T, of the first stimuli, empty where it was not found; contraction: the median over
        stimuli after each step up to T, residual: likewise up to 16 N, see diagnostics.
    """
    last = FACTOR * steps
    states = trajectory(cell, drive, last)
    try:
        radii = spectral_radius(cell, drive, states[last], samples=range(min(RADII, len(drive))))
    except (ValueError, RuntimeError):  # the run diverged, or the iteration did not converge
        radii = np.empty(0)
    return {
        "stimuli": len(drive),
        "penalty": lipschitz_coefficient(cell, drive, states[steps]),
        "penalty_far": lipschitz_coefficient(cell, drive, states[last]),
        "spectral_radius": _rounded(radii),
        "contraction": _rounded(contraction(cell, drive, last).median(dim=1).values),
        "residual": _rounded(residuals(cell, drive, LONGEST * steps).median(dim=1).values),
    }


@torch.no_grad()
def state_space(cell: nn.Module, drives: Iterable[Tensor], steps: int) -> dict:
    """Hidden states in the plane of most variance (Linsley et al. 2020, section 4.2).

    h_t is averaged over space, the principal components are those of all stimuli at t = 1 ... `steps` = N, and the
    states at t = 1 ... T are projected on the first two.

    Returns:
        stimuli; explained: fractions of the variance; projection: a list of T points a stimulus; pooled_at_N,
        pooled_at_T: C numbers a stimulus.
    """
    runs = []
    for drive in drives:
        states = trajectory(cell, drive, FACTOR * steps)[1:]
        runs.append(torch.stack([h.mean(dim=(2, 3)) for h, *_ in states], dim=1))
    pooled = torch.cat(runs).double().cpu().numpy()
    axes, explained = principal_axes(pooled[:, :steps].reshape(-1, pooled.shape[2]))
    centre = pooled[:, :steps].mean(axis=(0, 1))
    return {
        "stimuli": len(pooled),
        "explained": _rounded(explained[:2]),
        "projection": _rounded((pooled - centre) @ axes[:2].T),
        "pooled_at_N": _rounded(pooled[:, steps - 1]),
        "pooled_at_T": _rounded(pooled[:, -1]),
    }


def principal_axes(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The principal axes of M points in D dimensions, as rows, and the fraction of the variance along each."""
    _, singular, axes = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)
    variance = singular**2
    return axes, variance / variance.sum()


def _rounded(values: Tensor | np.ndarray) -> list:
    return np.asarray(values, dtype=np.float64).round(DIGITS).tolist()
