"""The functions of torch that name a device, replaced for the pretended one: factories, moves, autocast, torch.cuda."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from functools import partial, wraps
from typing import TYPE_CHECKING
from unittest import mock

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .pretended_device import PretendedDevice

CUDA = torch.device("cuda:0")
HOST, DEVICE = "host", "device"
COPYING = ("tensor", "as_tensor", "asarray")
FACTORIES = {
    torch: [
        *COPYING, "arange", "empty", "empty_strided", "eye", "full", "linspace", "normal", "ones", "rand", "randint",
        "randn", "randperm", "scalar_tensor", "zeros", "empty_like", "full_like", "ones_like", "rand_like",
        "randint_like", "randn_like", "zeros_like",
    ],
    Tensor: ["new_empty", "new_full", "new_ones", "new_tensor", "new_zeros"],
}  # fmt: skip
MOVES = ("to", "cpu", "cuda", "numpy", "tolist", "pin_memory", "__array__")
# Functions of torch.cuda and what they return.
ANSWERS = {
    "is_available": True, "device_count": 1, "current_device": 0, "synchronize": None, "_lazy_init": None,
    "memory_allocated": 0, "max_memory_allocated": 0, "reset_peak_memory_stats": None, "empty_cache": None,
    "manual_seed": None, "manual_seed_all": None, "set_device": None, "set_rng_state": None,
    "is_bf16_supported": True, "is_current_stream_capturing": False, "get_device_name": "pretended device",
    "get_device_capability": (9, 0),
}  # fmt: skip


class TorchPatches(ExitStack):
    """The replacements for a device; they are undone when the stack is closed."""

    def __init__(self, device: PretendedDevice):
        super().__init__()
        self.device = device
        for owner, names in FACTORIES.items():
            for name in names:
                self._replace(owner, name, self._factory)
        for name in MOVES:
            self._replace(Tensor, name, getattr(self, f"_{name.strip('_')}"))
        self._replace(Tensor, "__deepcopy__", lambda copy, x, memo: device.put(copy(x, memo), device.place(x)))
        original = Tensor.device.__get__
        self._patch(Tensor, "device", property(lambda x: CUDA if self._on_device(x) else original(x)))
        self._patch(Tensor, "is_cuda", property(lambda x: x.device.type == "cuda"))
        self._patch(Tensor, "is_cpu", property(lambda x: x.device.type == "cpu"))
        self._patch(Tensor, "get_device", lambda x: x.device.index if x.device.type == "cuda" else -1)
        self._patch_autocast()
        self._patch_cuda()

    def _patch(self, owner: object, name: str, value: object) -> None:
        self.enter_context(mock.patch.object(owner, name, value))

    def _replace(self, owner: object, name: str, method: Callable) -> None:
        original = getattr(owner, name)
        self._patch(owner, name, wraps(original)(lambda *args, **kwargs: method(original, *args, **kwargs)))

    def _on_device(self, x: Tensor) -> bool:
        return self.device.place(x) == DEVICE

    def _factory(self, original: Callable, *args, device=None, **kwargs) -> Tensor:
        like = args[0] if args and isinstance(args[0], Tensor) else None
        place = _place_of(device) or (HOST if like is None else self.device.place(like))
        if device is not None and place == HOST:
            kwargs["device"] = device
        if original.__name__ in COPYING and like is not None:
            moved = self._to(Tensor.to, like, CUDA if place == DEVICE else "cpu")
            return moved.to(kwargs["dtype"]) if kwargs.get("dtype") else moved
        if place == DEVICE and original.__name__ in (*COPYING, "new_tensor"):
            self.device.wait()
        with self.device.making(place):
            result = original(*args, **kwargs)
        return self.device.put(result, place) if place == DEVICE or self.device.place(result) != place else result

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
        if device is not None and torch.device(device).type == "meta":
            return _plain_to(x, device="meta", dtype=dtype)
        place = _place_of(device)
        if place is not None and self.device.place(x) != place:
            if not (non_blocking and place == DEVICE):
                self.device.wait()
            x, copy = _Move.apply(x, self.device, place), False
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
        if self._on_device(x):
            raise TypeError("can't convert a tensor of the device to numpy")
        return original(x, *args, **kwargs)

    _array = _numpy

    def _tolist(self, original: Callable, x: Tensor) -> list:
        if self._on_device(x):
            self.device.wait()
        with torch._C._DisableTorchDispatch():
            return original(x)

    def _patch_autocast(self) -> None:
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
        self._patch(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)

    def _patch_cuda(self) -> None:
        for name, value in ANSWERS.items():
            self._patch(torch.cuda, name, lambda *_, value=value, **__: value)
        self._patch(torch.cuda, "get_rng_state", lambda *_: torch.get_rng_state())
        self._patch(torch.cuda, "set_sync_debug_mode", lambda mode: setattr(self.device, "sync_mode", mode))
        self._patch(torch.cuda, "get_sync_debug_mode", lambda: self.device.sync_mode)
        stream = mock.MagicMock(**{"is_capturing.return_value": False})
        for owner in (torch.cuda, torch.accelerator):
            self._patch(owner, "current_stream", lambda *_: stream)
        self._patch(torch.cuda, "Stream", lambda *_: stream)
        self._patch(torch.cuda, "stream", lambda *_: nullcontext())
        self._patch(torch.cuda, "CUDAGraph", self.device.new_graph)
        self._patch(torch.cuda, "graph", lambda graph, **_: graph)
        self._patch(torch.accelerator, "synchronize", lambda *_: None)


def _place_of(device) -> str | None:
    """HOST or DEVICE; None without a device."""
    return None if device is None else DEVICE if torch.device(device).type == "cuda" else HOST


class _Move(torch.autograd.Function):
    """A copy on the other side, whose gradient is copied back."""

    @staticmethod
    def forward(ctx, x: Tensor, device: PretendedDevice, place: str) -> Tensor:
        ctx.back = CUDA if device.place(x) == DEVICE else "cpu"
        with torch._C._DisableTorchDispatch():
            copy = x.detach().clone()
        return device.put(copy, place)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        return gradient.to(ctx.back), None, None


_plain_to = Tensor.to
