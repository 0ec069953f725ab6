"""What convolutions by a transform share: derivatives of bilinear maps, and transforms of a weight.

Derivatives of any order, without a look inside the maps.
"""

from collections.abc import Callable

import torch
from torch import Tensor


class WeightTransform:
    """Something computed from a weight, without a graph, for all convolutions with it as it is now."""

    def __init__(self, weight: Tensor):
        self.weight = weight
        self.version = _version(weight)

    def belongs_to(self, weight: Tensor) -> bool:
        """Whether it is that of this tensor as it is now."""
        return self.weight is weight and self.version == _version(weight)


def _version(weight: Tensor) -> int | None:
    # Tensors of inference mode count no versions.
    return None if weight.is_inference() else weight._version


def bilinear(
    a: Tensor,
    b: Tensor,
    value: Callable[[], Tensor],
    gradient_a: Callable[[Tensor, Tensor], Tensor],
    gradient_b: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """The value of a bilinear map of a and b; its gradients are gradient_a(g, b) and gradient_b(g, a).

    One autograd function of both arguments could not tell a backward pass that wants both gradients from
    one that wants a single one (`ctx.needs_input_grad` only says what requires one), and a Neumann series
    would pay for a kernel's gradient with every term. So each argument has a node of its own, which
    autograd leaves out where it leads nowhere.
    """
    result = _Branch.apply(a, value, gradient_a, (b,))
    return _Join.apply(result, _Branch.apply(b, lambda: result.new_zeros(()).expand_as(result), gradient_b, (a,)))


class _Branch(torch.autograd.Function):
    """`value()` as a function of `own`, with gradient(g, *other) for a gradient.

    `other` comes in a tuple, where autograd does not see it: it is kept with its graph, but gets no edge.
    """

    @staticmethod
    def forward(ctx, own: Tensor, value: Callable[[], Tensor], gradient: Callable, other: tuple[Tensor]) -> Tensor:
        ctx.gradient = gradient
        ctx.save_for_backward(*other)
        return value()

    @staticmethod
    def backward(ctx, g: Tensor):
        return ctx.gradient(g, *ctx.saved_tensors), None, None, None


class _Join(torch.autograd.Function):
    """`result`, with the gradient for both."""

    @staticmethod
    def forward(ctx, result: Tensor, zero: Tensor) -> Tensor:
        return result.view_as(result)

    @staticmethod
    def backward(ctx, g: Tensor):
        return g, g
