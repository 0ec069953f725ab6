"""The loop of the solvers that stop at a tolerance: bookkeeping per sample, extrapolation left to them.

N: batch; D: elements of a sample's state over all its tensors.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from crbp_d2.utils.tracing import refuse_export, refuse_transform

from ..interfaces import Visit
from ..solution import Solution, SolveStats
from ..state import State, flatten, is_finite, relative_norm, sample_norm, select, unflatten
from .base import AnyCell, check_budget


class Extrapolation(ABC):
    """Proposes the next point of one solve from those seen so far, each sample on its own."""

    @abstractmethod
    def propose(self, x: Tensor, f: Tensor) -> Tensor:
        """The point after x, whose step is f; all N x D."""


class Accelerated(AnyCell, ABC):
    """Fixed point by extrapolation, to a tolerance.

    Every sample ends at the point of its smallest residual ||F(h) - h|| / ||F(h)||, whatever comes
    after it: a sample within `tol` is frozen there, one that never gets there, or turns non-finite, is
    reported as not converged. Nothing a sample does depends on the others of its batch (unless the
    cell itself mixes them, as batch norm does), and no decision on the scale of the state.

    Args:
        max_steps: evaluations of the step at most.
        tol: residual at which a sample is done.

    Raises:
        SettingError: max_steps < 1, tol outside (0, 1).
    """

    stops_at_tol = True

    def __init__(self, max_steps: int, tol: float):
        check_budget(type(self).__name__, max_steps=max_steps, tol=tol)
        self.steps = max_steps
        self.tol = tol

    def next_steps(self) -> int:
        """Evaluations at most of a run that names no number."""
        return self.steps

    @abstractmethod
    def begin(self) -> Extrapolation:
        """A fresh history for one solve."""

    def solve(
        self, step: Callable[[State], State], state: State, steps: int | None = None, visit: Visit | None = None
    ) -> Solution:
        """At most `steps` evaluations (default: max_steps; 0 is allowed) from `state`.

        Float32 or wider inside; under autocast the extrapolation keeps that precision.
        """
        budget = self.steps if steps is None else steps
        x = best_x = best_f = flatten(state)
        refuse_export(x, repr(self), "use FixedSteps")
        best = torch.full_like(x[:, 0], torch.inf)
        active = torch.ones_like(best, dtype=torch.bool)
        sample_steps = torch.zeros_like(active, dtype=torch.long)
        nonfinite_step = torch.zeros_like(sample_steps)
        history = self.begin()
        taken, scale = 0, None
        while taken < budget:
            f = flatten(step(unflatten(x, state)), state)
            refuse_transform((f,), repr(self), "use FixedSteps with Unrolled()")
            taken += 1
            sample_steps = sample_steps + active
            change, size = sample_norm((f - x,)), sample_norm((f,))
            residual = relative_norm(change, size)
            nonfinite_step = torch.where(active & ~is_finite((f,)), taken, nonfinite_step)
            better = active & (residual < best)  # false for NaN
            best = torch.where(better, residual, best)
            best_x, best_f = select(better, (x,), (best_x,))[0], select(better, (f,), (best_f,))[0]
            if visit:
                visit(unflatten(select(active, (f,), (best_f,))[0], state))
            active = active & (best > self.tol) & change.isfinite() & size.isfinite()
            if taken == budget or not active.any():
                break
            with torch.autocast(x.device.type, enabled=False):
                if taken == 1:
                    scale = _scale(f)
                proposed = history.propose(x, f) if scale is None else history.propose(x / scale, f / scale) * scale
                (x,) = select(active, (proposed,), (best_x,))
        # Infinite where not one evaluation was finite; without a step nothing has changed.
        residual = best if taken else torch.zeros_like(best)
        stats = SolveStats(taken, sample_steps, residual, residual <= self.tol, nonfinite_step)
        return Solution(unflatten(best_x, state), unflatten(best_f, state), stats)


# Extrapolation multiplies elements with one another, which is safe at these sizes.
_SAFE = 1e-10, 1e10


def _scale(f: Tensor) -> Tensor | None:
    """A power of two for each sample, N x 1, that brings it near 1, as extrapolation is equivariant; None: 1."""
    largest = f.abs().amax(dim=1, keepdim=True) if f.shape[1] else f.new_ones(len(f), 1)
    usual = ((largest > _SAFE[0]) & (largest < _SAFE[1])) | (largest == 0) | ~largest.isfinite()
    if f.device.type == "cpu" and usual.all():
        return None
    _, exponent = torch.frexp(largest)
    return torch.where(usual, torch.ones_like(largest), torch.ldexp(torch.ones_like(largest), exponent.clamp(max=126)))
