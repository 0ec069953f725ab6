"""The recorded step of an implicit gradient under activation checkpointing."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


@contextmanager
def kept_from_checkpoint() -> Iterator[None]:
    """Within torch's non-reentrant checkpoint, save what is recorded here as usual.

    The checkpoint repeats its whole function for every pass through a graph whose tensors it has dropped. A transposed
    solve passes the recorded step once a product, so without this a run would be repeated for each of them; the one
    step's tensors are what an implicit gradient keeps in any case.
    """
    if not _in_checkpoint():
        yield
        return
    with torch.autograd.graph.saved_tensors_hooks(_pack, _unpack):
        yield


def _in_checkpoint() -> bool:
    # Torch has no public word for which hooks are in force; where it has no such function, runs are repeated.
    autograd: Any = torch._C._autograd
    top = getattr(autograd, "_top_saved_tensors_default_hooks", None)
    hooks = top(True) if top is not None and autograd._saved_tensors_hooks_is_enabled() else None
    return hooks is not None and bool(hooks) and "torch.utils.checkpoint" in getattr(hooks[0], "__module__", "")


def _pack(tensor: Tensor) -> tuple[Tensor, int]:
    return tensor, tensor._version


def _unpack(packed: tuple[Tensor, int]) -> Tensor:
    tensor, version = packed
    if tensor._version != version:
        raise RuntimeError(
            f"a tensor of shape {tuple(tensor.shape)} that the recorded step of a recurrence needs has been modified "
            "by an inplace operation"
        )
    return tensor
