"""The recurrent state: a tuple of tensors, each N x ..., with one sample an entry of the first dimension.

N: batch; D: elements of one sample over all tensors. Everything here treats the tensors of a state as
one vector per sample.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from crbp_d2.layers.tensors import widen
from crbp_d2.utils.tracing import is_traced, refuse_transform

State = tuple[Tensor, ...]


def sample_norm(state: State) -> Tensor:
    """Euclidean norm of each sample over all tensors of the state: N values in float64.

    The squares are summed in float64, which holds those of every float32 and half number.
    """
    norms = [_norm(rows(part)) for part in state]
    return norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms), dim=0)


def _norm(vectors: Tensor) -> Tensor:
    if vectors.device.type == "cpu" and vectors.dtype == torch.float32 and not is_traced(vectors):
        # Where no square overflows or loses digits, this takes a sixth of the time.
        plain = torch.linalg.vector_norm(vectors, dim=1)
        if ((plain > 1e-12) & (plain < 1e18)).all():
            return plain.double()
    return torch.linalg.vector_norm(vectors, dim=1, dtype=torch.float64)


def total(state: State) -> Tensor:
    """Sum of the elements of each sample, which is finite only where all of them are: N values."""
    sums = [rows(widen(part)).sum(dim=1) for part in state]
    return sum(sums[1:], sums[0])


def relative_norm(change: Tensor, size: Tensor) -> Tensor:
    """change / size of each sample; 0 where both are 0, not finite where one of them is not."""
    return change / size.clamp(min=torch.finfo(size.dtype).tiny)


def relative_change(previous: State, state: State) -> Tensor:
    """||state - previous|| / ||state|| of each sample: N values; 0 where both are zero."""
    change = sample_norm(tuple(new - old for new, old in zip(state, previous, strict=True)))
    return relative_norm(change, sample_norm(state))


def vjp(state: State, previous: State, v: State, *, retain_graph: bool = False, create_graph: bool = False) -> State:
    """v J with J the Jacobian of `state` in `previous`, zero where nothing depends on a tensor of `previous`.

    Tensors of `state` without a graph are constants, which add nothing. This is the package's only call of
    torch.autograd.grad.

    Args:
        v: tensors of the shapes of `state`.
        retain_graph, create_graph: see torch.autograd.grad.
    """
    refuse_transform((), "a product with the Jacobian", "use Unrolled() without a penalty, or torch.autograd")
    known = [(part, weight) for part, weight in zip(state, v, strict=True) if part.requires_grad]
    wanted = [part for part in previous if part.requires_grad]
    found: Sequence[Tensor | None] = [None] * len(wanted)
    if known and wanted:
        ends, weights = zip(*known, strict=True)
        found = torch.autograd.grad(
            ends, wanted, weights, retain_graph=retain_graph or create_graph, create_graph=create_graph,
            allow_unused=True,
        )  # fmt: skip
    products = iter(found)
    given = (next(products) if part.requires_grad else None for part in previous)
    return tuple(torch.zeros_like(part) if p is None else p for p, part in zip(given, previous, strict=True))


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """N values in a shape that broadcasts over `like`, N x ...."""
    return values.view(-1, *[1] * (like.dim() - 1))


def select(mask: Tensor, chosen: State, other: State) -> State:
    """Per sample, `chosen` where `mask` (N booleans) holds and `other` elsewhere."""
    # A look at the mask is free on a CPU and saves a copy; elsewhere it would wait for the device.
    if mask.device.type == "cpu" and not is_traced(mask):
        if mask.all():
            return chosen
        if not mask.any():
            return other
    return tuple(torch.where(per_sample(mask, a), a, b) for a, b in zip(chosen, other, strict=True))


def add(a: State, b: State) -> State:
    return tuple(x + y for x, y in zip(a, b, strict=True))


def flatten(state: State, like: State | None = None) -> Tensor:
    """N x D, float32 or wider; of one tensor a view where it can be.

    Args:
        like: the state whose memory layout gives the order of the elements; default: `state` itself.
    """
    parts = [
        rows(widen(part.permute(_order(model))))
        for part, model in zip(state, state if like is None else like, strict=True)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def unflatten(vectors: Tensor, like: State) -> State:
    """The inverse of flatten; shapes, precision and layout are those of `like`."""
    pieces = vectors.split([math.prod(part.shape[1:]) for part in like], dim=1)
    return tuple(map(_unflattened, pieces, like))


def _unflattened(piece: Tensor, like: Tensor) -> Tensor:
    order = _order(like)
    back = sorted(range(len(order)), key=order.__getitem__)
    return piece.reshape([like.shape[k] for k in order]).permute(back).to(like.dtype)


def _order(part: Tensor) -> tuple[int, ...]:
    """Dimensions in memory order: channels last for an image in that layout."""
    if part.dim() == 4 and not part.is_contiguous() and part.is_contiguous(memory_format=torch.channels_last):
        return 0, 2, 3, 1
    return tuple(range(part.dim()))


def rows(part: Tensor) -> Tensor:
    """One tensor of a state as N x D; a view where it can be."""
    return part.flatten(1) if part.dim() > 1 else part.unsqueeze(1)


def describe(state: State) -> str:
    """The shapes, for error messages."""
    return ", ".join(" x ".join(map(str, part.shape)) or "a scalar" for part in state)


def checked_state(state: object, cell: object) -> State:
    """A state as a tuple.

    Raises:
        ValueError: not a tuple or list of floating-point tensors.
    """
    wanted = f"Recurrence: a state of {type(cell).__name__} must be a tuple of floating-point tensors, got"
    if not isinstance(state, tuple | list):
        raise ValueError(f"{wanted} {type(state).__name__}")
    if not state:
        raise ValueError(f"{wanted} an empty {type(state).__name__}")
    for part in state:
        if not isinstance(part, Tensor):
            raise ValueError(f"{wanted} a {type(state).__name__} that holds {type(part).__name__}")
        if not part.is_floating_point():
            raise ValueError(f"{wanted} {part.dtype}")
    return tuple(state)
