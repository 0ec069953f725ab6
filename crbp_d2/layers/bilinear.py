"""Derivatives of bilinear maps, of any order, without a look inside the maps."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def bilinear(
    a: Tensor,
    b: Tensor,
    value: Callable[[], Tensor],
    gradient_a: Callable[[Tensor, Tensor], Tensor],
    gradient_b: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """The value of a bilinear map of a and b; its gradients are gradient_a(g, b) and gradient_b(g, a).

    All of them compute in the precision of a and b, whatever autocast says.

    One autograd function of both arguments could not tell a backward pass that wants both gradients from
    one that wants a single one (`ctx.needs_input_grad` only says what requires one), and a Neumann series
    would pay for a kernel's gradient with every term. So each argument has a node of its own, which
    autograd leaves out where it leads nowhere.
    """

    def owned() -> Tensor:
        # Nobody could write into a view that is made within an autograd function.
        result = value()
        return result.clone() if result._is_view() else result

    result = _Branch.apply(a, owned, gradient_a, (b,))
    if not (torch.is_grad_enabled() and b.requires_grad):
        return result
    return Join.apply(result, _Branch.apply(b, lambda: result.new_zeros(()).expand_as(result), gradient_b, (a,)))


class _Branch(torch.autograd.Function):
    """`value()` as a function of `own`, with gradient(g, *other) for a gradient.

    `other` comes in a tuple, where autograd does not see it: it is kept with its graph, but gets no edge.
    """

    @staticmethod
    def forward(ctx, own: Tensor, value: Callable[[], Tensor], gradient: Callable, other: tuple[Tensor]) -> Tensor:
        ctx.gradient = gradient
        ctx.save_for_backward(*other)
        with _without_autocast(own):
            return value()

    @staticmethod
    def backward(ctx, g: Tensor):
        with _without_autocast(g):
            return ctx.gradient(g, *ctx.saved_tensors), None, None, None


class Join(torch.autograd.Function):
    """`result` itself, with the gradient for both. A view of it could not be written into afterwards."""

    @staticmethod
    def forward(ctx, result: Tensor, zero: Tensor) -> Tensor:
        ctx.mark_dirty(result)
        return result

    @staticmethod
    def backward(ctx, g: Tensor):
        return g, g


def _without_autocast(tensor: Tensor) -> AbstractContextManager:
    kind = tensor.device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()
