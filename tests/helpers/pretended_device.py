"""A pretended GPU: tensors with values on the CPU that report the device `cuda:0`.

Which storages are on the device is kept in a table; the attributes and functions of torch that name a device are
replaced, and a dispatch mode sees every operator. So operators that mix devices raise as on a GPU, waits for the host
and kernels are counted, and results are those of the CPU. What torch's C++ decides by device (autocast's lists, threads
of autograd) stays as on a CPU.

    with PretendedDevice() as device:
        module.to("cuda")
        with device.watch() as seen:
            module(drive.to("cuda"))
    assert seen.waits.total() == 0 and seen.kernels.total() < 100
"""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves

from .pretended_torch import CUDA, DEVICE, HOST, TorchPatches

__all__ = ["CUDA", "MixedDevicesError", "PretendedDevice", "Seen", "WaitError"]

EITHER = "either"
# Operators without a kernel, in addition to views, and those that take several.
FREE = {"_local_scalar_dense", "_unsafe_view", "detach", "empty", "empty_like", "empty_strided", "is_same_size"}
FREE |= {"lift_fresh", "new_empty", "new_empty_strided", "resize_", "set_", "_reshape_alias"}
MANY = {"convolution_backward": 2, "native_group_norm": 2, "native_group_norm_backward": 3}
# Operators whose result, or its shape, the host waits for.
WAITING = {"_linalg_check_errors", "_local_scalar_dense", "_unique2", "bincount", "equal", "is_nonzero"}
WAITING |= {"masked_select", "nms", "nonzero", "unique_consecutive", "unique_dim"}
INDEXING = {"_index_put_impl_", "_unsafe_index", "index", "index_put", "index_put_"}
COPYING = {"_foreach_copy_", "_to_copy", "copy_"}
JOINING = {"bmm", "cat", "mm", "stack"}


class MixedDevicesError(RuntimeError):
    """Tensors of the host and of the device in one operator."""


class WaitError(RuntimeError):
    """A wait for the device where none is allowed."""


@dataclass
class Seen:
    """Counts of kernels by operator, and of waits by "file:line" of the package, detectron2 or "autograd"."""

    kernels: Counter = field(default_factory=Counter)
    waits: Counter = field(default_factory=Counter)

    def waits_of(self, prefix: str) -> int:
        """Number of waits whose place begins with `prefix`."""
        return sum(count for place, count in self.waits.items() if place.startswith(prefix))


# Storages with a place, shared by all devices of a process: a package may keep tensors from one to the next.
_PLACES: dict[int, tuple[StorageWeakRef, str]] = {}


class PretendedDevice(TorchDispatchMode):
    """The device, present within the context; see the module."""

    def __init__(self) -> None:
        super().__init__()
        self.sync_mode: object = "default"
        self._place = EITHER  # of tensors that a factory makes; EITHER outside of a call from Python
        self._seen: list[Seen] = []
        self._graph: Graph | None = None
        self._patches = ExitStack()

    def __enter__(self) -> "PretendedDevice":
        self._patches = TorchPatches(self)
        super().__enter__()
        return self

    def __exit__(self, *error) -> None:
        super().__exit__(*error)
        self._patches.close()

    def place(self, x: Tensor) -> str:
        """HOST, DEVICE, or EITHER for what autograd makes without saying where."""
        try:
            entry = _PLACES.get(x.untyped_storage()._cdata)
        except (RuntimeError, NotImplementedError):  # wrappers of torch.func have no storage
            return HOST
        return entry[1] if entry else HOST

    def put(self, x: Tensor, place: str) -> Tensor:
        """Mark the storage of a tensor."""
        storage = x.untyped_storage()
        _PLACES[storage._cdata] = StorageWeakRef(storage), place
        if len(_PLACES) > 4096 and not len(_PLACES) % 1024:
            for key in [key for key, entry in _PLACES.items() if entry[0].expired()]:
                del _PLACES[key]
        return x

    @contextmanager
    def making(self, place: str) -> Iterator[None]:
        """Mark tensors without an input as made at `place` within the context."""
        kept, self._place = self._place, place
        try:
            yield
        finally:
            self._place = kept

    def new_graph(self) -> "Graph":
        return Graph(self)

    @contextmanager
    def watch(self) -> Iterator[Seen]:
        """Count the kernels and waits within the context."""
        self._seen.append(Seen())
        try:
            yield self._seen[-1]
        finally:
            self._seen.pop()

    def wait(self) -> None:
        """Record a wait of the host; raise within a captured graph or under set_sync_debug_mode("error")."""
        place = _caller()
        if self.sync_mode == "error" or self._graph is not None:
            raise WaitError(f"wait for the device at {place}")
        for seen in self._seen:
            seen.waits[place] += 1

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
        places = [self.place(x) for x in tensors]
        place = DEVICE if DEVICE in places else HOST if HOST in places else EITHER if places else self._place
        if DEVICE in places:
            self._check(name, args, tensors, places)
            indices = [x for x in args[1] if x is not None] if name in INDEXING else []
            masks = any(x.dtype in (torch.bool, torch.uint8) for x in indices)
            # An assignment of one number by a mask is a masked_fill.
            if name in WAITING or (masks and not ("put" in name and args[2].numel() == 1)):
                self.wait()
        result = func(*args, **kwargs)
        if place == DEVICE and not func.is_view and name not in FREE:
            for seen in self._seen:
                seen.kernels[name] += MANY.get(name, 1)
        if name.startswith("_foreach_") and name.endswith("_") and DEVICE in places:
            torch.autograd.graph.increment_version(args[0])  # as CUDA's kernels do; those of fused optimizers do not
        for x in tree_leaves(result):
            if isinstance(x, Tensor) and self.place(x) not in (place, DEVICE) and place != HOST:
                self.put(x, place)
        if self._graph is not None and DEVICE in (place, *places):
            self._graph.record(func, args, kwargs, result)
        return result

    def _check(self, name: str, args: tuple, tensors: list[Tensor], places: list[str]) -> None:
        host = [x for x, place in zip(tensors, places, strict=True) if place == HOST]
        host = [x for x in host if x.dim() or name in JOINING]
        if not host or name.startswith(("_fused_", "_foreach_add", "_foreach_lerp")):  # steps of optimizers
            return
        if name in COPYING or (name in INDEXING and self.place(args[0]) == DEVICE):
            self.wait()
            return
        raise MixedDevicesError(f"{name}: host tensors {[tuple(x.shape) for x in host]} with tensors of the device")


class Graph:
    """Operators recorded within the context; `replay` runs them again on the same tensors."""

    def __init__(self, device: PretendedDevice):
        self._device, self._calls = device, []

    def __enter__(self) -> None:
        self._device._graph = self

    def __exit__(self, *_) -> None:
        self._device._graph = None

    def record(self, func, args, kwargs, result) -> None:
        self._calls.append((func, args, kwargs, result))

    def replay(self) -> None:
        with torch.no_grad(), torch._C._DisableTorchDispatch():
            for func, args, kwargs, result in self._calls:
                new = func(*args, **kwargs)
                given = {_storage(x) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
                for old, x in zip(tree_leaves(result), tree_leaves(new), strict=True):
                    if isinstance(old, Tensor) and _storage(old) not in given:
                        old.detach().copy_(x)


def _storage(x: Tensor) -> int:
    return x.untyped_storage()._cdata


def _caller() -> str:
    """The innermost line of the package, detectron2 or torchdeq; "autograd" for an operator of autograd itself."""
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if file.endswith("torch/autograd/graph.py") and frame.f_code.co_name == "_engine_run_backward":
            return "autograd"
        for root in ("/crbp_d2/", "/detectron2/", "/torchdeq/", "/fvcore/"):
            if root in file:
                return f"{root[1:]}{file.rsplit(root, 1)[1]}:{frame.f_lineno}"
        frame = frame.f_back
    return "other"
