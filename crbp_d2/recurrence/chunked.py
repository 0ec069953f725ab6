"""A training run in chunks of samples: the recorded step of one chunk at a time is held.

N: samples; S: samples of a chunk.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from .autograd import leaves_beyond, once_differentiated
from .random_state import RandomState
from .solvers.base import SolveStats
from .state import State

# (drive, state, steps, parameters by name, called before the recorded step) -> last two states, penalty and statistics
# of a run with the usual graph
Parameters = Mapping[str, Tensor]
Run = Callable[[Tensor, State, int, Parameters, Callable[[], None]], tuple[State, State, Tensor, SolveStats]]


def run_in_chunks(
    run: Run, drive: Tensor, state: State, steps: int, size: int, parameters: Parameters, mean: bool
) -> tuple[State, Tensor, SolveStats]:
    """State, penalty and statistics of a run over all samples, with the gradients of running them at once.

    A chunk keeps its second-last state. In the backward pass its last step is computed once more, with
    a graph that is gone before the next chunk's turn; that costs two evaluations a sample in all. It is computed under
    the conditions of the first time: the same parameters, random numbers and autocast.

    Args:
        run: one chunk's run; its gradient must depend on the last step only.
        drive: N x ....
        state: where to start, N x ... each.
        size: S; the last chunk may be smaller.
        parameters: all that require a gradient, besides the drive.
        mean: whether the penalty is a mean over samples, else a sum.

    Raises:
        ValueError: the run uses a tensor that requires a gradient and is none of these.
    """
    collected = _Collected(-(-len(drive) // size))
    states, penalties = [], []
    for k, (part, *start) in enumerate(zip(drive.split(size), *(s.split(size) for s in state), strict=True)):
        *last, penalty = _Chunk.apply(run, collected, k, steps, tuple(parameters), part, *start, *parameters.values())
        states.append(last)
        penalties.append(penalty * (len(part) / len(drive)) if mean else penalty)
    joined = tuple(torch.cat(parts) for parts in zip(*states, strict=True))
    return joined, torch.stack(penalties).sum(), collected.stats()


class _Collected:
    """Statistics of the chunks, put together in their order."""

    def __init__(self, count: int):
        self.forward: list[SolveStats | None] = [None] * count
        self.backward: list[SolveStats | None] = [None] * count
        self.whole: SolveStats | None = None

    def stats(self) -> SolveStats:
        self.whole = _join(self.forward)
        return self.whole

    def finished(self, k: int, stats: SolveStats) -> None:
        """The backward pass of chunk k has run."""
        self.backward[k] = stats.transpose
        if all(report is not None for report in self.backward):
            self.whole.transpose = _join(self.backward)
            if self.whole.on_backward:
                self.whole.on_backward(self.whole)


def _join(parts: list[SolveStats]) -> SolveStats:
    joined = {
        name: torch.cat([getattr(part, name) for part in parts])
        for name in ("sample_steps", "residual", "converged", "nonfinite_step", "growing")
        if getattr(parts[0], name) is not None
    }
    return replace(parts[0], steps=max(part.steps for part in parts), transpose=None, on_backward=None, **joined)


class _Chunk(torch.autograd.Function):
    """One chunk's last state and penalty; the backward pass repeats its last step."""

    @staticmethod
    def forward(
        ctx,
        run: Run,
        collected: _Collected,
        k: int,
        steps: int,
        names: tuple[str, ...],
        drive: Tensor,
        *tensors: Tensor,
    ):
        count = len(tensors) - len(names)
        state, parameters = tensors[:count], tensors[count:]
        random = RandomState(drive.device)
        # Leaves of the chunk's own, so that whatever else the graph leads to is known to be left out.
        own = {name: tensor.detach().requires_grad_() for name, tensor in zip(names, parameters, strict=True)}
        with torch.enable_grad():
            previous, last, penalty, stats = run(drive.detach(), state, steps, own, random.keep)
        for leaf in leaves_beyond((*last, penalty), (*previous, *own.values())):
            raise ValueError(
                f"chunk_size repeats the last step with the cell's parameters, but it uses another tensor of shape "
                f"{tuple(leaf.shape)} that requires a gradient: make it a parameter, or leave chunk_size at 0"
            )
        collected.forward[k] = replace(stats, on_backward=None)
        ctx.run, ctx.collected, ctx.k, ctx.count, ctx.names, ctx.random = run, collected, k, count, names, random
        ctx.device = drive.device.type
        ctx.autocast = torch.is_autocast_enabled(ctx.device), torch.get_autocast_dtype(ctx.device)
        ctx.save_for_backward(drive, *parameters, *(part.detach() for part in previous))
        return (*(part.detach() for part in last), penalty.detach())

    @staticmethod
    def backward(ctx, *g: Tensor):
        drive, *rest = ctx.saved_tensors
        parameters, previous = rest[: len(ctx.names)], rest[len(ctx.names) :]
        enabled, dtype = ctx.autocast
        leaf = drive.detach().requires_grad_(drive.requires_grad)
        own = {name: tensor.detach().requires_grad_() for name, tensor in zip(ctx.names, parameters, strict=True)}
        with torch.enable_grad(), torch.autocast(ctx.device, dtype=dtype, enabled=enabled), ctx.random.restored():
            _, last, penalty, stats = ctx.run(leaf, tuple(previous), 1, own, lambda: None)
            stats.on_backward = lambda finished: ctx.collected.finished(ctx.k, finished)
        wanted = [tensor for tensor in (leaf, *own.values()) if tensor.requires_grad]
        known = [(part, v.detach()) for part, v in zip((*last, penalty), g, strict=True) if part.requires_grad]
        outputs, weights = zip(*known, strict=True) if known and wanted else ((), ())
        with torch.no_grad():
            found = iter(torch.autograd.grad(outputs, wanted, weights, allow_unused=True) if outputs else ())
        gradients = [next(found, None) if tensor.requires_grad else None for tensor in (leaf, *own.values())]
        gradients = once_differentiated(gradients, (drive, *parameters, *g))
        return (None,) * 5 + (gradients[0], *(None,) * ctx.count, *gradients[1:])
