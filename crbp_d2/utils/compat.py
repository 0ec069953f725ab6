"""Private names of torch that cannot be avoided, one function each."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd import forward_ad


def eager_call(module: Any) -> Callable[..., Any]:
    """The call of a module without what torch.compile made of it, hooks included."""
    module = getattr(module, "_orig_mod", module)
    compiled = isinstance(module, nn.Module) and module._compiled_call_impl is not None
    return module._call_impl if compiled else module


def checkpoint_saves_tensors() -> bool:
    """True if torch's non-reentrant checkpoint decides what is saved for backward; False if torch cannot tell."""
    autograd: Any = torch._C._autograd
    top = getattr(autograd, "_top_saved_tensors_default_hooks", None)
    hooks = top(True) if top is not None and autograd._saved_tensors_hooks_is_enabled() else None
    return bool(hooks) and "torch.utils.checkpoint" in getattr(hooks[0], "__module__", "")


def is_transformed() -> bool:
    """True within a function that torch.func transforms, or a backward pass that torch vectorizes by vmap."""
    return torch._C._are_functorch_transforms_active()


def is_legacy_batched(tensor: Tensor) -> bool:
    """True for a tensor of torch's older vmap, that of is_grads_batched and vectorize=True."""
    return "Batched" in str(torch._C._dispatch_keys(tensor))


def is_forward_mode() -> bool:
    """True within a level of forward-mode differentiation."""
    return forward_ad._current_level >= 0


def is_proxied() -> bool:
    """True while make_fx records proxies."""
    return torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.PROXY) is not None


def is_fake(tensor: Tensor) -> bool:
    """True for a fake tensor, which has no values."""
    return isinstance(tensor, FakeTensor)
