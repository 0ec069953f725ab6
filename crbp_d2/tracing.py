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


def is_exported(x: Tensor) -> bool:
    """Whether what is recorded outlives the call: under torch.jit.trace, torch.export and make_fx."""
    return is_traced(x) and not (
        is_compiled() or torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
    )


def refuse_export(x: Tensor, what: str, way_out: str) -> None:
    """Raise a RuntimeError where a record of the call would hold for the values at hand alone.

    Args:
        x: what the call computes on.
        what: the part whose course depends on values.
        way_out: what to use instead.
    """
    if is_exported(x) and not x.is_meta:
        raise RuntimeError(f"{what} cannot be traced or exported, since its course depends on values: {way_out}")
