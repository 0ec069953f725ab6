"""Steps without a graph, a block of samples at a time, so that what a step computes stays in a processor's caches.

N: samples of the batch.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from crbp_d2.recurrence.state import State
from crbp_d2.tracing import is_traced

# Elements of one tensor of the state in a block: 4 MiB in float32.
BLOCK = 2**20


def block_sizes(drive: Tensor) -> list[int]:
    """Samples of each block, as equal as can be: a function of the shape alone."""
    count = len(drive)
    blocks = max(1, min(count, -(-drive.numel() // BLOCK)))
    return [count // blocks + (k < count % blocks) for k in range(blocks)]


def in_blocks(step: Callable[[Tensor, State], State], norm: nn.Module, drive: Tensor, state: State) -> State:
    """step(drive, state); on a CPU and without a graph in blocks, where `norm` does not mix samples."""
    if torch.is_grad_enabled() or drive.device.type != "cpu" or is_traced(drive) or isinstance(norm, _BatchNorm):
        return step(drive, state)
    sizes = block_sizes(drive)
    if len(sizes) <= 1:
        return step(drive, state)
    parts = [part.split(sizes) for part in state]
    blocks = [step(d, tuple(part[k] for part in parts)) for k, d in enumerate(drive.split(sizes))]
    return tuple(torch.cat(parts) for parts in zip(*blocks, strict=True))
