"""A training run in chunks of samples: the recorded step of one chunk at a time is held.

N: samples; S: samples of a chunk.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from crbp_d2.layers.cache import solve_scope
from crbp_d2.utils.errors import ContradictionError, SettingError, check_whole
from crbp_d2.utils.tracing import refuse_batched, refuse_transform

from ..cell_step import CellStep, check_samples_apart, trainable
from ..conditions import Conditions, tensors_of
from ..guards import leaves_beyond, once_differentiated
from ..interfaces import Cell, Penalty, Solver, Trajectory, Visit
from ..penalties import REDUCTIONS
from ..solution import Solution, SolveStats
from ..state import State, vjp_or_none
from ..supervision import Supervision
from .implicit import Implicit


class Chunked:
    """An Implicit gradient that holds the last step of at most `size` samples at once, with the same results.

    A chunk keeps its second-last state. In the backward pass its last step is computed once more, with a graph that
    is gone before the next chunk's turn; that costs two evaluations a sample in all. It is computed under the
    conditions of the first time: the same parameters, random numbers and autocast. Small batches, runs whose states
    are recorded and those without gradients are not split.

    Args:
        gradient: what differentiates each chunk.
        size: S; the last chunk may be smaller.

    Raises:
        TypeError: a gradient that is not Implicit.
        SettingError: size < 1; (with the other parts) a penalty without a known `reduction`.
        ContradictionError: (with the other parts) a batch norm, and whatever contradicts the gradient within.
    """

    def __init__(self, gradient: Implicit, size: int):
        check_whole("Chunked", size=size)
        if not isinstance(gradient, Implicit):
            raise ContradictionError(
                {"size": size, "gradient": gradient},
                f"chunks bound what an Implicit gradient holds; {gradient!r} holds every step it unrolls",
                "Chunked",
            )
        self.gradient = gradient
        self.size = size

    def check(self, cell: Cell, solver: Solver, penalty: Penalty | None, supervision: Supervision) -> None:
        """See Gradient; raises also for a batch norm, and for a penalty whose reduction is not known."""
        self.gradient.check(cell, solver, penalty, supervision)
        check_samples_apart(cell, "Chunked", size=self.size)
        if penalty is not None and not (isinstance(penalty, Penalty) and penalty.reduction in REDUCTIONS):
            given = penalty.reduction if isinstance(penalty, Penalty) else penalty
            raise SettingError("penalty", given, "penalties whose `reduction` is 'mean' or 'sum'", "Chunked")

    def run(
        self,
        step: CellStep,
        state: State,
        solver: Solver,
        steps: int,
        penalty: Penalty | None = None,
        visit: Visit | None = None,
    ) -> Trajectory:
        """See Gradient.

        Raises:
            ValueError: the step uses a tensor that requires a gradient and is neither a parameter nor the drive.
        """
        count = len(step.drive)
        if visit is not None or count <= self.size or not torch.is_grad_enabled():
            return self.gradient.run(step, state, solver, steps, penalty, visit)
        refuse_transform((step.drive, *state), repr(self), "use Unrolled() without a penalty")
        parameters = trainable(step.cell)
        others = {name: tensor for name, tensor in tensors_of(step.cell).items() if name not in parameters}
        chunks = _Chunks(self.gradient, step, solver, steps, penalty, tuple(parameters), others)
        states, penalties = [], []
        starts = zip(*(part.split(self.size) for part in state), strict=True)
        for k, (drive, start) in enumerate(zip(step.drive.split(self.size), starts, strict=True)):
            *last, value = _Chunk.apply(chunks, k, drive, *start, *parameters.values())
            states.append(last)
            mean = penalty is not None and penalty.reduction == "mean"
            penalties.append(value * (len(drive) / count) if mean else value)
        joined = tuple(torch.cat(parts) for parts in zip(*states, strict=True))
        return Trajectory(joined, chunks.stats(), None if penalty is None else torch.stack(penalties).sum())

    def __repr__(self) -> str:
        return f"Chunked({self.gradient!r}, {self.size})"


@dataclass
class _Chunks:
    """What the chunks of a run have in common, and their statistics in their order.

    names: of the cell's parameters that get a gradient.
    others: the cell's other parameters, and its buffers.
    """

    gradient: Implicit
    step: CellStep
    solver: Solver
    steps: int
    penalty: Penalty | None
    names: tuple[str, ...]
    others: dict[str, Tensor]
    forward: dict[int, SolveStats] = field(default_factory=dict)
    backward: dict[int, SolveStats] = field(default_factory=dict)
    whole: SolveStats | None = None

    def record(
        self, drive: Tensor, state: State, steps: int, tensors: Mapping[str, Tensor], conditions: Conditions
    ) -> tuple[Solution, Tensor]:
        """The run of one chunk and its penalty.

        Args:
            tensors: take the place of the cell's in the recorded step.
            conditions: those of the recorded step, noted if they are not known yet.
        """

        def call(drive: Tensor, state: State) -> State:
            if not torch.is_grad_enabled():
                return self.step.call(drive, state)
            with conditions.held():
                return conditions.call_with(tensors, self.step.call, drive, state)

        with torch.enable_grad(), solve_scope():
            solution = self.gradient.recorded(self.step.through(call, drive), state, self.solver, steps)
            if self.penalty is None:
                return solution, torch.zeros((), device=drive.device)
            return solution, self.penalty(solution.previous, solution.state)

    def stats(self) -> SolveStats:
        self.whole = _join(self.forward)
        return self.whole

    def finished(self, k: int, stats: SolveStats) -> None:
        """The backward pass of chunk k has run."""
        if stats.transpose is not None:
            self.backward[k] = stats.transpose
        if self.whole is not None and len(self.backward) == len(self.forward):
            self.whole.report_backward(_join(self.backward))
            # A graph that is kept may be passed once more.
            self.backward.clear()


def _join(by_chunk: dict[int, SolveStats]) -> SolveStats:
    parts = [by_chunk[k] for k in range(len(by_chunk))]
    joined = {
        name: torch.cat([getattr(part, name) for part in parts])
        for name in ("sample_steps", "residual", "converged", "nonfinite_step", "growing")
        if getattr(parts[0], name) is not None
    }
    return replace(parts[0], steps=max(part.steps for part in parts), transpose=None, on_backward=None, **joined)


class _Chunk(torch.autograd.Function):
    """One chunk's last state and penalty; the backward pass repeats its last step."""

    @staticmethod
    def forward(ctx: Any, chunks: _Chunks, k: int, drive: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        count = len(tensors) - len(chunks.names)
        state, parameters = tensors[:count], tensors[count:]
        conditions = Conditions(chunks.step.cell, drive.device)
        own = tuple(map(_as_leaf, parameters))
        named = {**dict(zip(chunks.names, own, strict=True)), **chunks.others}
        solution, penalty = chunks.record(drive.detach(), state, chunks.steps, named, conditions)
        for leaf in leaves_beyond((*solution.state, penalty), (*solution.previous, *own)):
            raise ValueError(
                f"Chunked repeats the last step with the cell's parameters, but it uses another tensor of shape "
                f"{tuple(leaf.shape)} that requires a gradient: make it a parameter, or do without chunks"
            )
        chunks.forward[k] = solution.stats
        ctx.chunks, ctx.k, ctx.count, ctx.conditions, ctx.device = chunks, k, count, conditions, drive.device.type
        ctx.autocast = torch.is_autocast_enabled(ctx.device), torch.get_autocast_dtype(ctx.device)
        others = {**chunks.others, **conditions.overwritten}
        ctx.save_for_backward(drive, *parameters, *others.values(), *(part.detach() for part in solution.previous))
        return (*(part.detach() for part in solution.state), penalty.detach())

    @staticmethod
    def backward(ctx: Any, *g: Tensor) -> tuple[Tensor | None, ...]:
        refuse_batched(g, "an Implicit gradient")
        chunks = ctx.chunks
        drive, *rest = ctx.saved_tensors
        ends = len(chunks.names), len(chunks.names) + len(chunks.others)
        parameters, others, previous = rest[: ends[0]], rest[ends[0] : ends[1]], rest[ends[1] :]
        enabled, dtype = ctx.autocast
        leaf = drive.detach().requires_grad_(drive.requires_grad)
        own = tuple(map(_as_leaf, parameters))
        named = dict(zip((*chunks.names, *chunks.others), (*own, *others), strict=True))
        with torch.enable_grad(), torch.autocast(ctx.device, dtype=dtype, enabled=enabled), ctx.conditions.random():
            solution, penalty = chunks.record(leaf, tuple(previous), 1, named, ctx.conditions)
            solution.stats.on_backward = lambda stats: chunks.finished(ctx.k, stats)
            last = chunks.gradient.differentiated(solution)
        with torch.no_grad():
            gradients = vjp_or_none((*last, penalty), (leaf, *own), tuple(part.detach() for part in g))
        found = once_differentiated(gradients, (drive, *parameters, *g))
        return (None, None, found[0], *(None,) * ctx.count, *found[1:])


def _as_leaf(tensor: Tensor) -> Tensor:
    """A leaf, so that whatever else a graph leads to is known to be left out."""
    return tensor if tensor.is_leaf else tensor.detach().requires_grad_()
