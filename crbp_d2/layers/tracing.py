"""Whether a call is recorded or transformed by torch, so that it must consist of plain differentiable operators."""

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad


def is_traced(x: Tensor) -> bool:
    """Under torch.jit.trace, torch.export, torch.compile, make_fx, torch.func, forward mode, or without values."""
    if torch.jit.is_tracing() or torch.compiler.is_compiling():
        return True
    # Fake tensors are a subclass; what the transforms of torch.func, forward mode and make_fx wrap is not.
    if type(x) not in (Tensor, nn.Parameter) or x.is_meta:
        return True
    return (
        torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.PROXY) is not None
    )


def is_compiled() -> bool:
    """Under torch.compile alone, which can leave a call out of what it compiles."""
    exporting = getattr(torch.compiler, "is_exporting", lambda: False)  # Since torch 2.7.
    return torch.compiler.is_compiling() and not exporting()
