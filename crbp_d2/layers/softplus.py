"""The softplus of the cells, without the logarithm of 1 + x that some processors take ten times as long for."""

import torch
from torch import Tensor
from torch.nn import functional as F

from crbp_d2.recurrence.state import widen
from crbp_d2.tracing import is_traced


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)), element by element, to a few roundings everywhere; differentiable any number of times.

    Under tracing and export, and away from CPUs, it is torch's own.
    """
    if x.device.type != "cpu" or not x.is_floating_point() or is_traced(x):
        return F.softplus(x)
    return _Softplus.apply(x)


class _Softplus(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return _value(widen(x)).to(x.dtype)

    @staticmethod
    def backward(ctx, g: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return g * torch.sigmoid(x)


def _value(x: Tensor) -> Tensor:
    """max(x, 0) + log(1 + t) with t = exp(-|x|)."""
    t = x.abs().neg_().exp_()
    # log(1 + t) is t log(u) / (u - 1) with u = 1 + t as rounded, and t where u is 1 (Kahan): `tiny` makes 1 of 0 / 0.
    tiny = torch.finfo(x.dtype).tiny ** 0.5
    u = t + 1
    ratio = u.log().add_(tiny)
    ratio.div_(u.sub_(1).add_(tiny))
    return t.mul_(ratio).add_(x.clamp(min=0))
