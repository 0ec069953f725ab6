"""The softplus of the cells, without the logarithm of 1 + x that some processors take ten times as long for."""

import torch
from torch import Tensor
from torch.nn import functional as F

from crbp_d2.utils.tracing import is_traced

from .tensors import widen

# 2 atanh(z) / z as a polynomial in z^2, for z in [0, 1/3]: the Chebyshev interpolant of degree 4, which errs by 4e-9,
# a tenth of float32's rounding. `tests/layers/test_softplus.py` derives it again.
ATANH = (2.00000001, 0.66666322, 0.40024595, 0.27965158, 0.28157778)


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)), element by element, to a few roundings everywhere; differentiable any number of times.

    Under tracing and export, and away from CPUs, it is torch's own.
    """
    if x.device.type != "cpu" or not x.is_floating_point() or is_traced(x):
        return F.softplus(x)
    if not (torch.is_grad_enabled() and x.requires_grad):
        return _value(x)
    return _Softplus.apply(x)


class _Softplus(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return _value(x)

    @staticmethod
    def backward(ctx, g: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return g * torch.sigmoid(x)


def _value(x: Tensor) -> Tensor:
    """max(x, 0) + log(1 + exp(-|x|))."""
    wide = widen(x)
    log = _log_in_float32(wide) if wide.dtype == torch.float32 else _log(wide)
    return log.add_(wide.clamp(min=0)).to(x.dtype)


def _log_in_float32(x: Tensor) -> Tensor:
    """log(1 + t) = 2 atanh(t / (2 + t)) with t = exp(-|x|), by s / (2 - s) with s = t / (1 + t) = sig(-|x|)."""
    z = x.abs().neg_().sigmoid_()
    square = 2 - z
    z.div_(square)
    torch.mul(z, z, out=square)
    series = square * ATANH[-1]
    for coefficient in ATANH[-2:0:-1]:
        series.add_(coefficient).mul_(square)
    return series.add_(ATANH[0]).mul_(z)


def _log(x: Tensor) -> Tensor:
    """log(1 + t) with t = exp(-|x|)."""
    t = x.abs().neg_().exp_()
    # It is t log(u) / (u - 1) with u = 1 + t as rounded, and t where u is 1 (Kahan): `tiny` makes 1 of 0 / 0.
    tiny = torch.finfo(x.dtype).tiny ** 0.5
    u = t + 1
    ratio = u.log().add_(tiny)
    ratio.div_(u.sub_(1).add_(tiny))
    return t.mul_(ratio)
