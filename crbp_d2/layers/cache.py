"""Values kept for a solve, and marks of a step that serves a series of products.

Within a solve drive and parameters do not change, so what depends on them only, such as the spectrum of a kernel, is
computed once and kept in the solve's cache. Nothing outlives the solve: between solves weights change in ways that
torch does not count (fused optimizers, replayed graphs, `weight.data`).
"""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

# Context variables, so that every thread (DataParallel's, say) has its own.
_CACHE: ContextVar[dict[Any, Any] | None] = ContextVar("crbp_d2_solve_cache", default=None)
_MANY_PRODUCTS: ContextVar[bool] = ContextVar("crbp_d2_many_products", default=False)


@contextmanager
def solve_scope() -> Iterator[None]:
    """The extent of a solve, as a context or a decorator; one within another shares the outer one's cache."""
    if _CACHE.get() is not None:
        yield
        return
    token = _CACHE.set({})
    try:
        yield
    finally:
        _CACHE.reset(token)


@contextmanager
def many_products() -> Iterator[None]:
    """The recording of a step whose graph will serve vector-Jacobian products in its state, before the gradient."""
    token = _MANY_PRODUCTS.set(True)
    try:
        yield
    finally:
        _MANY_PRODUCTS.reset(token)


def serves_many_products() -> bool:
    """True if such a step is being recorded in this thread."""
    return _MANY_PRODUCTS.get()


def solve_cache() -> dict[Any, Any] | None:
    """The cache of the solve that is running in this thread; None outside of one."""
    return _CACHE.get()


def kept_for_solve(key: Hashable, tensors: tuple[Tensor, ...], make: Callable[[], Tensor]) -> Tensor:
    """`make()` without a graph, computed once a solve under a key as long as it and its arguments stay as they are.

    Args:
        tensors: the arguments; the same memory, written to by nobody, is the same argument.
    """
    cache = _CACHE.get()
    if cache is None or any(tensor.is_inference() for tensor in tensors):
        # Tensors made in inference mode do not count writes.
        with torch.no_grad():
            return make()
    kept, marks = cache.get(key, ((), None))
    if [_mark(tensor) for tensor in (*tensors, *kept[-1:])] != marks:
        with torch.inference_mode(False), torch.no_grad():
            kept = *tensors, make()
        cache[key] = kept, [_mark(tensor) for tensor in kept]
    return kept[-1]


def _mark(tensor: Tensor) -> tuple[Hashable, ...]:
    """Place and version of a tensor that is alive."""
    return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype, tensor._version
