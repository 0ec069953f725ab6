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
    """Euclidean norm of each sample over all tensors of the state: N values, float32 or wider.

    Right wherever the norm itself can be represented: each sample is scaled by its largest element, whose square
    alone may overflow or vanish.
    """
    norms = [_norm(widen(rows(part))) for part in state]
    return norms[0] if len(norms) == 1 else _norm(torch.stack(norms, dim=1))


def _norm(vectors: Tensor) -> Tensor:
    """Of each row of N x D."""
    if not vectors.shape[1]:
        return vectors.new_zeros(len(vectors))
    plain = torch.linalg.vector_norm(vectors, dim=1)
    limits = torch.finfo(plain.dtype)
    # Beyond these, squares of elements overflow, or lose digits below the smallest normal number.
    safe = (plain > limits.tiny**0.5 / limits.eps) & plain.isfinite()
    if vectors.device.type == "cpu" and not is_traced(vectors) and safe.all():
        return plain
    largest = vectors.abs().amax(dim=1)
    scale = torch.where((largest > 0) & largest.isfinite(), largest, 1)
    return torch.where(safe, plain, torch.linalg.vector_norm(vectors / scale[:, None], dim=1) * scale)


def relative_norm(change: Tensor, size: Tensor) -> Tensor:
    """change / size of each sample; 0 where the change is 0, infinite where the size is."""
    return torch.where(change == 0, change, torch.where(size.isinf(), torch.inf, change / size))


def relative_change(previous: State, state: State) -> Tensor:
    """||state - previous|| / ||state|| of each sample: N values; 0 where both are zero, infinite where a norm is."""
    change = sample_norm(tuple(new - old for new, old in zip(state, previous, strict=True)))
    return relative_norm(change, sample_norm(state))


def vjp(state: State, previous: State, v: State, *, retain_graph: bool = False, create_graph: bool = False) -> State:
    """v J with J the Jacobian of `state` in `previous`, zero where nothing depends on a tensor of `previous`.

    Tensors of `state` without a graph are constants, which add nothing.

    Args:
        v: of the shapes of `state`.
        retain_graph, create_graph: as of torch.autograd.grad.
    """
    products = vjp_or_none(state, previous, v, retain_graph=retain_graph, create_graph=create_graph)
    return tuple(torch.zeros_like(part) if p is None else p for p, part in zip(products, previous, strict=True))


def vjp_or_none(
    outputs: Sequence[Tensor],
    inputs: Sequence[Tensor],
    v: Sequence[Tensor],
    *,
    retain_graph: bool = False,
    create_graph: bool = False,
) -> list[Tensor | None]:
    """`vjp` with None where nothing depends on an input: the package's only call of torch.autograd.grad."""
    refuse_transform((), "a product with the Jacobian", "use Unrolled() without a penalty, or torch.autograd")
    known = [(part, weight) for part, weight in zip(outputs, v, strict=True) if part.requires_grad]
    wanted = [part for part in inputs if part.requires_grad]
    if not known or not wanted:
        return [None] * len(inputs)
    ends, weights = zip(*known, strict=True)
    products = torch.autograd.grad(
        ends, wanted, weights, retain_graph=retain_graph or create_graph, create_graph=create_graph, allow_unused=True
    )
    found = iter(products)
    return [next(found) if part.requires_grad else None for part in inputs]


def is_finite(state: State) -> Tensor:
    """Whether every element of a sample is finite: N booleans, on the state's device."""
    # Both are finite only if all in between are: they pass NaN on, and nothing can overflow. A norm would take several
    # times as long on the CPU.
    vectors = [rows(part.detach()) for part in state]
    ends = [end for v in vectors if v.shape[1] for end in (v.amin(dim=1), v.amax(dim=1))]
    if not ends:
        return torch.ones(len(vectors[0]), dtype=torch.bool, device=vectors[0].device)
    return torch.stack(ends).isfinite().all(dim=0)


def select(mask: Tensor, chosen: State, other: State) -> State:
    """Per sample, `chosen` where `mask` (N booleans) holds and `other` elsewhere; no copy if one of them is all."""
    # A look at the mask is free on a CPU; elsewhere it would wait for the device.
    if mask.device.type == "cpu" and not is_traced(mask):
        if mask.all():
            return chosen
        if not mask.any():
            return other
    return tuple(torch.where(mask.view(-1, *[1] * (a.dim() - 1)), a, b) for a, b in zip(chosen, other, strict=True))


def add(a: State, b: State) -> State:
    return tuple(x + y for x, y in zip(a, b, strict=True))


def flatten(state: State, like: State | None = None) -> Tensor:
    """N x D, float32 or wider; of one tensor a view where it can be.

    Args:
        like: the state whose layout in memory gives the order of the elements; default: `state` itself.
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
    """Dimensions as they lie in memory: of an image whose channels are last, these last."""
    if part.dim() == 4 and not part.is_contiguous() and part.is_contiguous(memory_format=torch.channels_last):
        return 0, 2, 3, 1
    return tuple(range(part.dim()))


def rows(part: Tensor) -> Tensor:
    """One tensor of a state as N x D; a view where it can be."""
    return part.flatten(1) if part.dim() > 1 else part.unsqueeze(1)


def describe(state: State) -> str:
    """The shapes, for error messages."""
    return ", ".join(" x ".join(map(str, part.shape)) or "a scalar" for part in state)
