"""Private names of other packages that cannot be avoided, one function each."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn


def eager_call(module: Any) -> Callable[..., Any]:
    """The call of a module without what torch.compile made of it, hooks included."""
    module = getattr(module, "_orig_mod", module)
    compiled = isinstance(module, nn.Module) and module._compiled_call_impl is not None
    return module._call_impl if compiled else module


def checkpoint_saves_tensors() -> bool:
    """Whether torch's non-reentrant checkpoint decides what is saved for backward; False where torch cannot tell."""
    autograd: Any = torch._C._autograd
    top = getattr(autograd, "_top_saved_tensors_default_hooks", None)
    hooks = top(True) if top is not None and autograd._saved_tensors_hooks_is_enabled() else None
    return bool(hooks) and "torch.utils.checkpoint" in getattr(hooks[0], "__module__", "")
