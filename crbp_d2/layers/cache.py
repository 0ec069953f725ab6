"""What a cell may know of the solve that its step is one of.

A cell may compute things that depend on its parameters alone, such as the spectrum of a kernel. Within a solve the
parameters do not change, so these are computed once, kept in the solve's cache, and gone with it. And it may prepare
a step for being differentiated once, as in back-propagation through time, or by every term of a series.
"""

import threading
import weakref
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from crbp_d2.utils.tracing import is_traced

# A context variable, so that every thread (DataParallel's, say) has its own.
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


def solve_cache() -> dict[Any, Any] | None:
    """The cache of the solve that is running in this thread; None outside of one."""
    return _CACHE.get()


@contextmanager
def many_products() -> Iterator[None]:
    """The recording of a step whose graph will serve vector-Jacobian products in its state, before the gradient."""
    token = _MANY_PRODUCTS.set(True)
    try:
        yield
    finally:
        _MANY_PRODUCTS.reset(token)


def serves_many_products() -> bool:
    """Whether such a step is being recorded in this thread."""
    return _MANY_PRODUCTS.get()


# Transforms that one layer keeps, for images of two sizes that take turns.
MOST_KEPT = 2


class Mark:
    """A tensor as it is now: its identity and its version, which writing through `tensor.data` does not change."""

    def __init__(self, tensor: Tensor):
        self._tensor, self._version = weakref.ref(tensor), _version(tensor)

    def is_of(self, tensor: Tensor) -> bool:
        return self._tensor() is tensor and self._version == _version(tensor)


class WeightTransform:
    """Something computed from a weight as it is when this is made, without a graph.

    Attributes:
        snapshot: a copy of the weight.
    """

    def __init__(self, weight: Tensor):
        with outside_autograd():
            self.snapshot = weight.detach().clone(memory_format=torch.contiguous_format)
        self._mark = Mark(weight)

    def is_of(self, weight: Tensor) -> bool:
        """Whether it is the transform of a weight with these values.

        On a CPU the values themselves are compared, so that no way to change them, not even through `weight.data`,
        goes unseen. Elsewhere that would wait for the device, and the tensor and its version decide.
        """
        if weight.device.type != "cpu":
            return self._mark.is_of(weight) and not weight.is_inference()
        copy = self.snapshot
        return copy.dtype == weight.dtype and copy.device == weight.device and torch.equal(copy, weight.detach())


@contextmanager
def outside_autograd() -> Iterator[None]:
    """No graph, and no tensors of inference mode either, which a later training step could not use."""
    with torch.inference_mode(False), torch.no_grad():
        yield


def _version(tensor: Tensor) -> int | None:
    # Tensors of inference mode count no versions.
    return None if tensor.is_inference() else tensor._version


class TransformStore:
    """The transforms that a layer keeps: the last few, none of them in copies and pickles of the layer."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[Hashable, WeightTransform] = {}

    def get(self, key: Hashable, weight: Tensor, make: Callable[[Tensor], Any]) -> Any:
        """The transform under a key, `make(weight)` where none of this weight is kept.

        A solve compares the weight's values once; its other steps only look whether it was written to.
        """
        solve = solve_cache()
        mark, found = (None, None) if solve is None else solve.get((self, key), (None, None))
        if mark is not None and mark.is_of(weight):
            return found
        with self._lock:
            found = self._kept.get(key)
        if found is None or not found.is_of(weight):
            found = make(weight)
        with self._lock:
            self._kept.pop(key, None)
            self._kept[key] = found
            while len(self._kept) > MOST_KEPT:
                del self._kept[next(iter(self._kept))]
        if solve is not None:
            solve[self, key] = Mark(weight), found
        return found

    def __deepcopy__(self, memo: dict) -> "TransformStore":
        return TransformStore()

    def __reduce__(self):
        return TransformStore, ()


def driven_by(drive: Tensor, layer: nn.Module) -> Tensor:
    """layer(drive), kept for the other steps of the solve: as long as drive, parameters and autocast are the same."""
    cache = solve_cache()
    if cache is None or torch.is_grad_enabled() or is_traced(drive) or _is_watched(layer):
        return layer(drive)
    kind = drive.device.type
    key = layer, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
    marks, value = cache.get(key, ((), None))
    tensors = drive, *layer.parameters()
    if len(marks) != len(tensors) or not all(map(Mark.is_of, marks, tensors)):
        value = layer(drive)
        cache[key] = [Mark(tensor) for tensor in tensors], value
    return value


def _is_watched(layer: nn.Module) -> bool:
    """Whether hooks or a parametrization may give another result at every call."""
    return any(part._forward_hooks or part._forward_pre_hooks for part in layer.modules()) or any(
        hasattr(part, "parametrizations") for part in layer.modules()
    )
