"""The parts of a recurrence as protocols, and what passes between them.

An object with these methods and attributes is such a part; nothing needs to inherit. N: samples of the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from .state import State, relative_norm, sample_norm
from .supervision import Supervision

# Called with the state after every step of a run.
Visit = Callable[[State], None]


@runtime_checkable
class Cell(Protocol):
    """One step of the recurrence, a torch module. With an attribute `channels`, drives are N x channels x ...."""

    def initial_state(self, drive: Tensor) -> State:
        """The state that a run starts from."""
        ...

    def __call__(self, drive: Tensor, state: State, /) -> State:
        """The next state, of the shapes of `state`."""
        ...


class Step(Protocol):
    """A map from one state of N samples to the next.

    inference: whether the run is neither trained nor differentiated, so that samples may leave it early.
    """

    @property
    def inference(self) -> bool: ...

    def __call__(self, state: State, /) -> State: ...

    def subset(self, samples: Tensor) -> Step:
        """The step of some of the samples, by their indices."""
        ...


class SampleStats(NamedTuple):
    """Statistics of each sample, N values each; see SolveStats."""

    sample_steps: Tensor
    residual: Tensor
    converged: Tensor
    nonfinite_step: Tensor
    growing: Tensor | None = None


class SolveStats:
    """Statistics of a solve. Those of the samples have N entries and no graph, and are computed when first read.

    Args:
        steps: cell evaluations (Jacobian products in a transposed solve) of the whole batch.
        samples: computes the statistics of the samples.
        reached: whether all samples converged, where the solver knows it on the host; else None.

    Attributes:
        sample_steps: evaluations until each sample was done; it is frozen afterwards.
        residual: ||h_T - h_{T-1}|| / ||h_T||; for a NeumannSeries the norm of its last term relative to the first.
        converged: whether the residual is within the tolerance of the solver.
        nonfinite_step: the first step whose state was not finite, counted from 1; 0 if all were.
        growing: for a NeumannSeries, whether the terms grew, so that the sum is no fixed-point gradient; else None.
        transpose: statistics of the backward solve; None until the backward pass has run, and for unrolled gradients.
        on_backward: called once with this object when `transpose` has been filled.
    """

    def __init__(self, steps: int, samples: Callable[[], SampleStats], reached: bool | None = None):
        self.steps = steps
        self.reached = reached
        self.transpose: SolveStats | None = None
        self.on_backward: Callable[[SolveStats], None] | None = None
        self._compute = samples

    @cached_property
    def _samples(self) -> SampleStats:
        with torch.no_grad():
            return self._compute()

    def __getattr__(self, name: str) -> Tensor | None:
        if name in SampleStats._fields:
            return getattr(self._samples, name)
        raise AttributeError(f"SolveStats has no attribute {name!r}")

    def report_backward(self, transpose: SolveStats) -> None:
        """Take in the statistics of the backward solve."""
        self.transpose = transpose
        if self.on_backward:
            self.on_backward(self)

    def after(self, earlier: SolveStats) -> SolveStats:
        """Statistics of both solves together, where this one began at the end of the earlier one."""

        def samples() -> SampleStats:
            before, own = earlier._samples, self._samples
            later = torch.where(own.nonfinite_step > 0, own.nonfinite_step + earlier.steps, 0)
            return own._replace(
                sample_steps=before.sample_steps + own.sample_steps,
                nonfinite_step=torch.where(before.nonfinite_step > 0, before.nonfinite_step, later),
            )

        return SolveStats(earlier.steps + self.steps, samples, self.reached)


@dataclass
class Solution:
    """A finished run.

    previous, state: the last two states, `state` the step of `previous`; a gradient makes `state` differentiable.
    stats: complete, except for the backward solve.
    penalty: a scalar, where a gradient was asked for one.
    """

    previous: State
    state: State
    stats: SolveStats
    penalty: Tensor | None = None

    @classmethod
    def of_steps(cls, previous: State, state: State, sums: Sequence[Tensor], tol: float) -> Solution:
        """The solution of steps that all samples have taken.

        Args:
            sums: `total` of the state after each step.
            tol: residual that counts as converged.
        """
        with torch.no_grad():
            change = sample_norm(tuple(new - old for new, old in zip(state, previous, strict=True)))
            size = sample_norm(state)

        def samples() -> SampleStats:
            residual = relative_norm(change, size)
            steps = torch.full_like(residual, len(sums), dtype=torch.long)
            nonfinite_step = first_nonfinite(sums) if sums else torch.zeros_like(steps)
            return SampleStats(steps, residual, residual <= tol, nonfinite_step)

        return cls(previous, state, SolveStats(len(sums), samples))

    def after(self, earlier: Solution) -> Solution:
        """This run as the continuation of an earlier one."""
        self.stats = self.stats.after(earlier.stats)
        return self


def first_nonfinite(values: Sequence[Tensor]) -> Tensor:
    """The first step (from 1) of each sample whose value is not finite, 0 where all are; N integers.

    Args:
        values: N numbers after each step.
    """
    # Among equal maxima the first one is returned.
    lost, first = (~torch.stack(tuple(values)).isfinite()).to(torch.uint8).max(dim=0)
    return torch.where(lost > 0, first + 1, 0)


@runtime_checkable
class TransposeSolver(Protocol):
    """Solver of the transposed problem u = J^T u + g of an Implicit gradient.

    stops_at_tol: whether a sample's run ends at a tolerance. If not, all take the same steps.
    """

    @property
    def stops_at_tol(self) -> bool: ...

    def solve(self, step, state: State, steps: int | None = None, visit: Visit | None = None) -> Solution: ...


@runtime_checkable
class Solver(Protocol):
    """Solver of the fixed point, forward and (by the same call, with an affine step) in the transposed problem.

    steps: evaluations (at most) of a run in inference that does not name a number.
    tol: residual within which a sample counts as converged.
    stops_at_tol: whether a run ends there. If not, the solver is plain iteration, which can be unrolled.
    """

    @property
    def steps(self) -> int: ...

    @property
    def tol(self) -> float: ...

    @property
    def stops_at_tol(self) -> bool: ...

    def next_steps(self) -> int:
        """Evaluations of the training run that is about to begin: `steps`, unless they are drawn."""
        ...

    def solve(self, step: Step, state: State, steps: int | None = None, visit: Visit | None = None) -> Solution:
        """At most `steps` (default: the solver's own; 0 is allowed) evaluations of `step` from `state`."""
        ...

    def check(self, cell: Cell) -> None:
        """Raise a ContradictionError if the solver cannot run this cell."""
        ...


@runtime_checkable
class Penalty(Protocol):
    """A term of the loss, as a function of the last step.

    reduction: "mean" or "sum" over the samples.
    """

    @property
    def reduction(self) -> str: ...

    def __call__(self, previous: State, state: State) -> Tensor:
        """A scalar. `state` was computed from `previous` with a graph."""
        ...


@dataclass
class Run:
    """A run that a gradient is asked for.

    step, state: what is iterated, and from where.
    solver, steps: how, and how many evaluations (at most), at least 1.
    penalty: computed with a graph; None where it is not wanted.
    visit: called with all states.
    """

    step: Step
    state: State
    solver: Solver
    steps: int
    penalty: Penalty | None = None
    visit: Visit | None = None

    def first(self, steps: int) -> Solution:
        """The first `steps` evaluations, by the solver."""
        return self.solver.solve(self.step, self.state, steps, self.visit)

    def rest(self, before: Solution, state: State) -> Run:
        """The remaining steps after `before`, from `state`, the last one of `before`."""
        return replace(self, state=state, steps=max(self.steps - before.stats.steps, 0))


@runtime_checkable
class Gradient(Protocol):
    """Differentiation of the result of a run."""

    def check(self, cell: Cell, solver: Solver, penalty: Penalty | None, supervision: Supervision) -> None:
        """Raise a ContradictionError if the other parts do not fit this gradient."""
        ...

    def run(self, run: Run) -> Solution:
        """The run, differentiable by this gradient; without a graph where gradients are off."""
        ...
