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
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial, wraps
from unittest import mock

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map

CUDA = torch.device("cuda:0")
HOST, DEVICE, EITHER = "host", "device", "either"
FACTORIES = [
    "arange",
    "asarray",
    "as_tensor",
    "empty",
    "empty_strided",
    "eye",
    "full",
    "linspace",
    "normal",
    "ones",
    "rand",
]
FACTORIES += ["randint", "randn", "randperm", "scalar_tensor", "tensor", "zeros"]
FACTORIES += ["empty_like", "full_like", "ones_like", "rand_like", "randint_like", "randn_like", "zeros_like"]
METHODS = ["new_empty", "new_full", "new_ones", "new_tensor", "new_zeros"]
# Operators without a kernel beside views, and those that take several.
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
        self._making: str = EITHER  # place of tensors that a factory makes; EITHER outside of a call from Python
        self._seen: list[Seen] = []
        self._sync_mode: object = "default"
        self._graph: Graph | None = None
        self._patches = ExitStack()

    def __enter__(self) -> "PretendedDevice":
        for owner, names in ((torch, FACTORIES), (Tensor, METHODS)):
            for name in names:
                self._replace(owner, name, self._factory)
        for name in ("to", "cpu", "cuda", "numpy", "tolist", "pin_memory", "__array__"):
            self._replace(Tensor, name, getattr(self, f"_{name.strip('_')}"))
        self._replace(Tensor, "__deepcopy__", lambda copy, x, memo: self.put(copy(x, memo), self.place(x)))
        original = Tensor.device.__get__
        device = property(lambda x: CUDA if self.place(x) == DEVICE else original(x))
        self._patch(Tensor, "device", device)
        self._patch(Tensor, "is_cuda", property(lambda x: x.device.type == "cuda"))
        self._patch(Tensor, "is_cpu", property(lambda x: x.device.type == "cpu"))
        self._patch(Tensor, "get_device", lambda x: x.device.index if x.device.type == "cuda" else -1)
        self._patch_torch()
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
        if self._sync_mode == "error" or self._graph is not None:
            raise WaitError(f"wait for the device at {place}")
        for seen in self._seen:
            seen.waits[place] += 1

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
        places = [self.place(x) for x in tensors]
        place = DEVICE if DEVICE in places else HOST if HOST in places else EITHER if places else self._making
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

    def _patch(self, owner: object, name: str, value: object) -> None:
        self._patches.enter_context(mock.patch.object(owner, name, value))

    def _replace(self, owner: object, name: str, method: Callable) -> None:
        original = getattr(owner, name)
        self._patch(owner, name, wraps(original)(lambda *args, **kwargs: method(original, *args, **kwargs)))

    def _factory(self, original: Callable, *args, device=None, **kwargs) -> Tensor:
        like = args[0] if args and isinstance(args[0], Tensor) else None
        if device is None and like is not None:
            place = self.place(like)
        else:
            place = DEVICE if device is not None and torch.device(device).type == "cuda" else HOST
        if device is not None and torch.device(device).type != "cuda":
            kwargs["device"] = device
        copies = original.__name__ in ("tensor", "as_tensor", "asarray", "new_tensor")
        if place == DEVICE and copies and not (like is not None and original.__name__ != "new_tensor"):
            self.wait()
        if copies and like is not None and original.__name__ != "new_tensor":
            moved = self._to(Tensor.to, like, CUDA if place == DEVICE else "cpu")
            return moved.to(kwargs["dtype"]) if kwargs.get("dtype") else moved
        kept, self._making = self._making, place
        try:
            result = original(*args, **kwargs)
        finally:
            self._making = kept
        return self.put(result, place) if place == DEVICE or self.place(result) != place else result

    def _to(self, original: Callable, x: Tensor, *args, non_blocking: bool = False, copy: bool = False, **kwargs):
        device, dtype = kwargs.pop("device", None), kwargs.pop("dtype", None)
        for value in args:
            if isinstance(value, Tensor):
                device, dtype = value.device, value.dtype
            elif isinstance(value, torch.dtype):
                dtype = value
            elif isinstance(value, bool):
                non_blocking = value
            elif value is not None:
                device = value
        place = None if device is None else DEVICE if torch.device(device).type == "cuda" else HOST
        if device is not None and torch.device(device).type == "meta":
            return _plain_to(x, device="meta", dtype=dtype)
        if place is not None and self.place(x) != place:
            if not (non_blocking and place == DEVICE):
                self.wait()
            x, copy = _Move.apply(x, self, place), False
        if dtype is None and not copy and not kwargs:
            return x
        return _plain_to(x, dtype=dtype or x.dtype, copy=copy, **kwargs)

    def _cpu(self, original: Callable, x: Tensor, **_) -> Tensor:
        return x.to("cpu")

    def _cuda(self, original: Callable, x: Tensor, *_, non_blocking: bool = False) -> Tensor:
        return x.to(CUDA, non_blocking=non_blocking)

    def _pin_memory(self, original: Callable, x: Tensor, *_) -> Tensor:
        return x

    def _numpy(self, original: Callable, x: Tensor, *args, **kwargs):
        if self.place(x) == DEVICE:
            raise TypeError(f"can't convert a tensor of the device to numpy at {_caller()}")
        return original(x, *args, **kwargs)

    _array = _numpy

    def _tolist(self, original: Callable, x: Tensor) -> list:
        if self.place(x) == DEVICE:
            self.wait()
        with torch._C._DisableTorchDispatch():
            return original(x)

    def _patch_torch(self) -> None:
        """Replace the functions of torch that name a device or ask for one."""

        def kind(device: str) -> str:
            return "cpu" if str(device).startswith("cuda") else device

        class Autocast(torch.autocast):
            def __init__(self, device_type: str, dtype: torch.dtype | None = None, *args, **kwargs):
                default = torch.float16 if device_type == "cuda" else None
                super().__init__(kind(device_type), dtype or default, *args, **kwargs)

        for owner in (torch, torch.amp, torch.amp.autocast_mode):
            self._patch(owner, "autocast", Autocast)
        self._patch(torch.cuda.amp, "autocast", partial(Autocast, "cuda"))
        for owner, name in (
            (torch, "is_autocast_enabled"),
            (torch, "get_autocast_dtype"),
            (torch.amp, "is_autocast_available"),
            (torch.amp.autocast_mode, "is_autocast_available"),
        ):
            self._replace(owner, name, lambda original, device="cpu": original(kind(device)))
        values = {"is_available": True, "device_count": 1, "current_device": 0, "synchronize": None, "_lazy_init": None}
        values |= {"memory_allocated": 0, "max_memory_allocated": 0, "reset_peak_memory_stats": None}
        values |= {"empty_cache": None, "manual_seed": None, "manual_seed_all": None, "set_device": None}
        values |= {"is_bf16_supported": True, "is_current_stream_capturing": False, "set_rng_state": None}
        values |= {"get_device_name": "pretended device", "get_device_capability": (9, 0)}
        for name, value in values.items():
            self._patch(torch.cuda, name, lambda *_, value=value, **__: value)
        self._patch(torch.cuda, "get_rng_state", lambda *_: torch.get_rng_state())
        self._patch(torch.cuda, "set_sync_debug_mode", lambda mode: setattr(self, "_sync_mode", mode))
        self._patch(torch.cuda, "get_sync_debug_mode", lambda: self._sync_mode)
        stream = mock.MagicMock(**{"is_capturing.return_value": False})
        for owner, name in (
            (torch.cuda, "Stream"),
            (torch.cuda, "current_stream"),
            (torch.accelerator, "current_stream"),
        ):
            self._patch(owner, name, lambda *_: stream)
        self._patch(torch.cuda, "stream", lambda *_: nullcontext())
        self._patch(torch.cuda, "CUDAGraph", lambda: Graph(self))
        self._patch(torch.cuda, "graph", lambda graph, **_: graph)
        self._patch(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
        self._patch(torch.accelerator, "synchronize", lambda *_: None)


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


class _Move(torch.autograd.Function):
    """A copy on the other side, whose gradient is copied back."""

    @staticmethod
    def forward(ctx, x: Tensor, device: PretendedDevice, place: str) -> Tensor:
        ctx.device, ctx.back = device, device.place(x)
        with torch._C._DisableTorchDispatch():
            copy = x.detach().clone()
        return device.put(copy, place)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        return gradient.to(CUDA if ctx.back == DEVICE else "cpu"), None, None


_plain_to = Tensor.to


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


def values(x):
    """Copies on the CPU of all tensors in a structure."""
    return tree_map(lambda t: t.detach().cpu() if isinstance(t, Tensor) else t, x)
