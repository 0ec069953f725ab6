"""Whether torch records or transforms a call, so that it must consist of plain differentiable operators."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd import forward_ad


def is_traced(x: Tensor) -> bool:
    """Under torch.jit.trace, torch.export, torch.compile, make_fx, torch.func, forward mode, or without values."""
    if torch.jit.is_tracing() or torch.compiler.is_compiling():
        return True
    # Fake tensors are a subclass; tensors wrapped by torch.func, forward mode and make_fx are not.
    if type(x) not in (Tensor, nn.Parameter) or x.is_meta:
        return True
    return is_transformed() or forward_ad._current_level >= 0 or _is_proxied()


def is_compiled() -> bool:
    """Under torch.compile and not under torch.export."""
    exporting = getattr(torch.compiler, "is_exporting", lambda: False)  # Since torch 2.7.
    return torch.compiler.is_compiling() and not exporting()


def is_exported(x: Tensor) -> bool:
    """Whether the record outlives the call: under torch.jit.trace, torch.export and make_fx."""
    if is_compiled() or is_transformed() or forward_ad._current_level >= 0:
        return False
    return torch.jit.is_tracing() or torch.compiler.is_compiling() or _is_proxied()


def is_transformed() -> bool:
    """Within a function that torch.func transforms, or a backward pass that torch vectorizes by vmap."""
    return torch._C._are_functorch_transforms_active()


def is_batched(tensors: Iterable[Tensor]) -> bool:
    """Whether a tensor represents several, under is_grads_batched, vectorize=True or torch.func."""
    # The first two use torch's older vmap, whose tensors have no public mark.
    return is_transformed() or any("Batched" in str(torch._C._dispatch_keys(part)) for part in tensors)


def _is_proxied() -> bool:
    return torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.PROXY) is not None


def refuse_export(x: Tensor, what: str, hint: str) -> None:
    """Raise a RuntimeError where a record of the call would hold for the current values only."""
    if (is_exported(x) or isinstance(x, FakeTensor)) and not x.is_meta:
        raise RuntimeError(f"{what} cannot be traced or exported, since its course depends on values: {hint}")


def refuse_transform(tensors: Iterable[Tensor], what: str, hint: str) -> None:
    """Raise a RuntimeError where a transform of torch.func or forward mode would lose the derivative, or fail."""
    if is_transformed():
        raise RuntimeError(f"{what} cannot be transformed by torch.func, nor its gradient vectorized: {hint}")
    if forward_ad._current_level >= 0 and any(forward_ad.unpack_dual(part).tangent is not None for part in tensors):
        raise RuntimeError(f"{what} cannot be differentiated in forward mode: {hint}")


def refuse_batched(g: Iterable[Tensor], what: str) -> None:
    """Raise a RuntimeError where torch takes the gradients of several vectors at once."""
    if is_batched(g):
        raise RuntimeError(
            f"{what} takes the gradient of one vector at a time: do without is_grads_batched, vectorize=True, "
            "torch.vmap and torch.func, or use Unrolled()"
        )
