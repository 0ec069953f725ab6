"""What is computed from a weight alone, and where it is kept for the next convolution with the same weight."""

import threading
import weakref
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from crbp_d2.recurrence.scope import solve_cache

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
