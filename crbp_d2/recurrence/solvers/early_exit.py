"""Inference in which every sample stops by itself.

N: batch.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..state import State, is_finite, relative_change
from .base import Solution, Visit


def stop_early(
    step: Callable[[Tensor, State], State],
    drive: Tensor,
    state: State,
    steps: int,
    tol: float,
    visit: Visit | None = None,
) -> Solution:
    """Plain steps; a sample leaves the batch at the first of them whose residual is within `tol`.

    The residual is ||h_t - h_{t-1}|| / ||h_t||. Steps are taken with the samples that are left, so those
    that have stopped cost nothing. A sample that turns non-finite is none of them: it goes on to the end.

    Args:
        step: (drive, state) -> state, of a cell that does not mix samples.
        drive: N x ...
        steps: at most, at least 1.
        visit: sees the state of all N samples after each step, that of a stopped one as it was.
    """
    samples = torch.arange(len(drive), device=drive.device)
    sample_steps, nonfinite_step = torch.zeros_like(samples), torch.zeros_like(samples)
    residual = relative_change(state, state)
    # Written to as samples stop.
    last, last_previous = (tuple(part.clone() for part in state) for _ in range(2))
    for taken in range(1, steps + 1):
        previous, state = state, step(drive, state)
        change = relative_change(previous, state)
        if not change.isfinite().all():
            newly_lost = ~is_finite(state) & (nonfinite_step[samples] == 0)
            nonfinite_step[samples[newly_lost]] = taken
        if visit:
            visit(tuple(whole.index_copy(0, samples, part) for whole, part in zip(last, state, strict=True)))
        # False for NaN.
        stops = change <= tol if taken < steps else torch.ones_like(change, dtype=torch.bool)
        if stops.any():
            stopped = samples[stops]
            for whole, part in zip(last + last_previous, state + previous, strict=True):
                whole[stopped] = part[stops]
            sample_steps[stopped] = taken
            residual[stopped] = change[stops]
            samples, drive, state = samples[~stops], drive[~stops], tuple(part[~stops] for part in state)
        if not len(samples):
            break
    return Solution(last_previous, last, taken, sample_steps, residual, nonfinite_step=nonfinite_step)


def mixes_samples(module: nn.Module) -> bool:
    """Whether a batch norm makes a sample's result depend on the others of its batch."""
    return any(isinstance(part, _BatchNorm) for part in module.modules())
