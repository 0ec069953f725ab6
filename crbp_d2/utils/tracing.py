"""Detection of calls that torch records or transforms, which must consist of plain differentiable operators."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from .compat import is_fake, is_forward_mode, is_legacy_batched, is_proxied, is_transformed


def is_traced(x: Tensor) -> bool:
    """Under torch.jit.trace, torch.export, torch.compile, make_fx, torch.func, forward mode, or without values."""
    if torch.jit.is_tracing() or torch.compiler.is_compiling():
        return True
    # Fake tensors are a subclass; tensors wrapped by torch.func, forward mode and make_fx are not.
    if type(x) not in (Tensor, nn.Parameter) or x.is_meta:
        return True
    return is_transformed() or is_forward_mode() or is_proxied()


def is_compiled() -> bool:
    """Under torch.compile and not under torch.export."""
    exporting = getattr(torch.compiler, "is_exporting", lambda: False)  # Since torch 2.7.
    return torch.compiler.is_compiling() and not exporting()


def is_exported(x: Tensor) -> bool:
    """True if the record outlives the call: under torch.jit.trace, torch.export and make_fx."""
    if is_compiled() or is_transformed() or is_forward_mode():
        return False
    return torch.jit.is_tracing() or torch.compiler.is_compiling() or is_proxied()


def is_batched(tensors: Iterable[Tensor]) -> bool:
    """True if a tensor represents several, under is_grads_batched, vectorize=True or torch.func."""
    return is_transformed() or any(map(is_legacy_batched, tensors))


def refuse_export(x: Tensor, what: str, hint: str) -> None:
    """Raise a RuntimeError where a record of the call would hold for the current values only."""
    if (is_exported(x) or is_fake(x)) and not x.is_meta:
        raise RuntimeError(f"{what} cannot be traced or exported, since its course depends on values: {hint}")


def refuse_transform(tensors: Iterable[Tensor], what: str, hint: str) -> None:
    """Raise a RuntimeError where a transform of torch.func or forward mode would lose the derivative, or fail."""
    if is_transformed():
        raise RuntimeError(f"{what} cannot be transformed by torch.func, nor its gradient vectorized: {hint}")
    if is_forward_mode() and any(forward_ad.unpack_dual(part).tangent is not None for part in tensors):
        raise RuntimeError(f"{what} cannot be differentiated in forward mode: {hint}")


def refuse_batched(g: Iterable[Tensor], what: str) -> None:
    """Raise a RuntimeError where torch takes the gradients of several vectors at once."""
    if is_batched(g):
        raise RuntimeError(
            f"{what} takes the gradient of one vector at a time: do without is_grads_batched, vectorize=True, "
            "torch.vmap and torch.func, or use Unrolled()"
        )
