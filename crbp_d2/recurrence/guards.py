"""Leaves that a graph reaches, derivatives that are not defined, and activation checkpointing."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from crbp_d2.utils.compat import checkpoint_saves_tensors
from crbp_d2.utils.tracing import refuse_transform

from .state import State


def reaches_beyond(outputs: Sequence[Tensor], inputs: Sequence[Tensor]) -> bool:
    """Return whether a leaf other than `inputs` gets a gradient from `outputs`."""
    known = {id(tensor) for tensor in inputs}
    waiting = [part.grad_fn for part in outputs if part.grad_fn is not None]
    # The nodes themselves are kept: Python's objects for them live only as long as they are referred to.
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        leaf = getattr(node, "variable", None)
        if leaf is not None and id(leaf) not in known:
            return True
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                waiting.append(following)
    return False


def once_differentiated(values: Sequence[Tensor | None], depends_on: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
    """`values` of a backward pass, whose own derivative raises instead of being taken for zero.

    Args:
        depends_on: the tensors that the values are functions of.

    Raises:
        RuntimeError: later, where a second derivative is asked for.
    """
    anchors = [tensor for tensor in depends_on if tensor.requires_grad]
    present = [value for value in values if value is not None]
    if not torch.is_grad_enabled() or not anchors or not present:
        return tuple(values)
    marked = iter(_OnceDifferentiated.apply(len(present), *present, *anchors))
    return tuple(None if value is None else next(marked) for value in values)


class _OnceDifferentiated(torch.autograd.Function):
    @staticmethod
    def forward(ctx, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(value.view_as(value) for value in tensors[:count])

    @staticmethod
    def backward(ctx, *g: Tensor):
        raise RuntimeError(
            "an Implicit gradient is defined once: a second derivative through it (a gradient penalty, a Hessian, a "
            "recurrence inside a penalized one) needs Unrolled(), or the loss as a function of detached gradients"
        )


def start_recording(state: State) -> State:
    """`state` as the leaf of the graph that the next steps record, if gradients are on."""
    recorded = torch.is_grad_enabled()
    if recorded:
        refuse_transform((), "a gradient that begins with a later step", "use Unrolled() without a penalty")
        # Autocast would otherwise hand the recorded steps the weights it cast without a graph.
        torch.clear_autocast_cache()
    return tuple(part.detach().requires_grad_(recorded) for part in state)


@contextmanager
def kept_from_checkpoint() -> Iterator[None]:
    """Within torch's non-reentrant checkpoint, save what is recorded here as usual.

    The checkpoint repeats its whole function for every pass through a graph whose tensors it has dropped. A transposed
    solve passes the recorded step once a product, so without this a run would be repeated for each of them; the one
    step's tensors are what an implicit gradient keeps in any case.
    """
    if not checkpoint_saves_tensors():
        yield
        return
    with torch.autograd.graph.saved_tensors_hooks(_pack, _unpack):
        yield


def _pack(tensor: Tensor) -> tuple[Tensor, int]:
    # Not the tensor itself: a result of the step would hold its own graph, and never be freed.
    return tensor.detach(), tensor._version


def _unpack(packed: tuple[Tensor, int]) -> Tensor:
    tensor, version = packed
    if tensor._version != version:
        raise RuntimeError(
            f"a tensor of shape {tuple(tensor.shape)} that the recorded step of a recurrence needs has been modified "
            "by an inplace operation"
        )
    return tensor
