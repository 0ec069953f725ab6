"""Whether a call is recorded or transformed by torch, so that it must consist of plain differentiable operators."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd import forward_ad


def is_traced(x: Tensor) -> bool:
    """Under torch.jit.trace, torch.export, torch.compile, make_fx, torch.func, forward mode, or without values."""
    if torch.jit.is_tracing() or torch.compiler.is_compiling():
        return True
    # Fake tensors are a subclass; what the transforms of torch.func, forward mode and make_fx wrap is not.
    if type(x) not in (Tensor, nn.Parameter) or x.is_meta:
        return True
    return is_transformed() or forward_ad._current_level >= 0 or _is_proxied()


def is_compiled() -> bool:
    """Under torch.compile alone, which can leave a call out of what it compiles."""
    exporting = getattr(torch.compiler, "is_exporting", lambda: False)  # Since torch 2.7.
    return torch.compiler.is_compiling() and not exporting()


def is_exported(x: Tensor) -> bool:
    """Whether what is recorded outlives the call: under torch.jit.trace, torch.export and make_fx."""
    if is_compiled() or is_transformed() or forward_ad._current_level >= 0:
        return False
    # A subclass of the user's, or a tensor without values, is computed with as any other.
    return torch.jit.is_tracing() or torch.compiler.is_compiling() or _is_proxied()


def is_transformed() -> bool:
    """Within a function that torch.func transforms, or a backward pass that torch vectorizes by vmap."""
    return torch._C._are_functorch_transforms_active()


def has_tangent(tensors: Iterable[Tensor]) -> bool:
    """Whether forward mode carries a derivative along with one of the tensors."""
    if forward_ad._current_level < 0:
        return False
    return any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors)


def _is_proxied() -> bool:
    return torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.PROXY) is not None


def refuse_export(x: Tensor, what: str, way_out: str) -> None:
    """Raise a RuntimeError where a record of the call would hold for the values at hand alone.

    Args:
        x: what the call computes on.
        what: the part whose course depends on values.
        way_out: what to use instead.
    """
    if (is_exported(x) or isinstance(x, FakeTensor)) and not x.is_meta:
        raise RuntimeError(f"{what} cannot be traced or exported, since its course depends on values: {way_out}")


def refuse_transform(tensors: Iterable[Tensor], what: str, way_out: str) -> None:
    """Raise a RuntimeError where a transform of torch.func or forward mode would lose the derivative, or fail.

    Args:
        tensors: what the call computes on.
        what, way_out: see refuse_export.
    """
    if is_transformed():
        raise RuntimeError(f"{what} cannot be transformed by torch.func, nor its gradient vectorized: {way_out}")
    if has_tangent(tensors):
        raise RuntimeError(f"{what} cannot be differentiated in forward mode: {way_out}")


def is_batched(tensors: Iterable[Tensor]) -> bool:
    """Whether a tensor stands for several, under is_grads_batched, vectorize=True or torch.func."""
    # Torch has no public word for tensors of its older vmap, which the first two use.
    return is_transformed() or any("Batched" in str(torch._C._dispatch_keys(part)) for part in tensors)


def refuse_batched(g: Iterable[Tensor], what: str) -> None:
    """Raise a RuntimeError where torch takes the gradients of several vectors at once, by vmap of old or of torch.func.

    Args:
        g: incoming gradients.
        what: the part whose course depends on values.
    """
    if is_batched(g):
        raise RuntimeError(
            f"{what} takes the gradient of one vector at a time: do without is_grads_batched, vectorize=True, "
            "torch.vmap and torch.func, or use Unrolled()"
        )
