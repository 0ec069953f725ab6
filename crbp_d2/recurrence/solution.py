"""The end of a solve, and its statistics.

N: samples of the batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from .state import State, relative_change


@dataclass
class SolveStats:
    """What a solve reports, complete when the solver returns it. Per-sample tensors have N entries and no graph.

    steps: cell evaluations (Jacobian products in a transposed solve) of the whole batch.
    sample_steps: those until each sample was done; beyond it the sample was frozen.
    residual: ||h_T - h_{T-1}|| / ||h_T||, per sample; for a NeumannSeries the norm of its last term
        relative to the first.
    converged: residual within the tolerance of the solver, per sample.
    nonfinite_step: the first step whose state was not finite, counted from 1, per sample; 0: none was.
    growing: of a NeumannSeries: the terms grew, so the result is no fixed-point gradient; else None.
    transpose: of the backward solve; None until the backward pass has run, and for unrolled gradients.
    on_backward: called once with this object when `transpose` has been filled.
    """

    steps: int
    sample_steps: Tensor
    residual: Tensor
    converged: Tensor
    nonfinite_step: Tensor
    growing: Tensor | None = None
    transpose: "SolveStats | None" = None
    on_backward: "Callable[[SolveStats], None] | None" = field(default=None, repr=False)

    def report_backward(self, transpose: "SolveStats") -> None:
        """Take in the statistics of the backward solve."""
        self.transpose = transpose
        if self.on_backward:
            self.on_backward(self)

    def after(self, earlier: "SolveStats") -> "SolveStats":
        """Of both solves together, this one having begun where the earlier one ended."""
        own = torch.where(self.nonfinite_step > 0, self.nonfinite_step + earlier.steps, 0)
        return SolveStats(
            self.steps + earlier.steps,
            self.sample_steps + earlier.sample_steps,
            self.residual,
            self.converged,
            torch.where(earlier.nonfinite_step > 0, earlier.nonfinite_step, own),
            self.growing,
        )


@dataclass
class Solution:
    """What a solver returns.

    previous, state: the last two states, `state` the step of `previous`.
    stats: complete, but for the backward solve.
    """

    previous: State
    state: State
    stats: SolveStats

    @classmethod
    @torch.no_grad()
    def of_steps(cls, previous: State, state: State, finite: Sequence[Tensor], tol: float) -> "Solution":
        """The solution of steps that all samples have taken.

        Args:
            finite: `is_finite` of the state after each step.
            tol: residual that counts as converged.
        """
        residual = relative_change(previous, state)
        count = torch.zeros_like(residual, dtype=torch.long)
        nonfinite_step = _first_false(torch.stack(tuple(finite))) if finite else count
        stats = SolveStats(len(finite), count + len(finite), residual, residual <= tol, nonfinite_step)
        return cls(previous, state, stats)

    def report(self, tol: float) -> SolveStats:
        """The statistics, with another residual that counts as converged."""
        converged = self.stats.residual <= tol
        if self.stats.growing is not None:
            converged = converged & ~self.stats.growing
        return replace(self.stats, converged=converged)


def _first_false(holds: Tensor) -> Tensor:
    """The first step (from 1) of each sample at which `holds` (T x N) is false, or 0."""
    first = (~holds).long().argmax(dim=0) + 1
    return torch.where(holds.all(dim=0), 0, first)
