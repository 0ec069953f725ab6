"""Bounds of each method's rounding error against the exact convolution, for any order of its sums.

With the unit roundoff u (2^-24 in float32), n roundings on the way from an input to an output multiply a product by
1 + d with |d| <= gamma(n) = n u / (1 - n u) (Higham 2002, section 3.1). Guaranteed is then

direct        Sums of n = C E^2 products:   |error| <= gamma(n) sum |w| |x| <= gamma(n) W X,
              with X = max |x| and W = max over k of sum |w_k|, the norm of the convolution.
fft           A transform of n values errs by at most t = 10 u log2(n) in the Euclidean norm (Higham 2002, section 24.1,
              with a constant for factors up to 7). The spectrum of a kernel is two sums of E terms, |spectrum| <= S =
              sum |w|, and y = F^-1 [sum over c of (F w) . (F x)], so that
              |error| <= (2 t + gamma(3 E + 2 C + 10)) max over n, k of sum over c of S ||x||.
              It is relative to ||x|| of the whole image, at most sqrt(H W) times its largest value: next to a bright
              pixel, small values elsewhere lose digits that a direct convolution would keep.

Roundings that know nothing of each other add as squares do (Higham & Mary 2019). In the same formulas, with squares in
the place of absolute values, sqrt(n) in that of n and a root at the end, that gives the root mean square error that is
typical; it is larger than those of random images by factors, not by orders of magnitude.

N: batch; C, K: input and output channels; H x W: image size; E: kernel size.
"""

import math

import torch
from torch import Tensor

from crbp_d2.layers.fourier import transform_size


def error_bound(method: str, x: Tensor, weight: Tensor) -> float:
    """Upper bound of the error of any output of a convolution without bias.

    Args:
        method: "direct" or "fft".
        x: N x C x H x W in the precision that is computed in, float32 or float64.
        weight: K x C x E x E.
    """
    return _bound(method, x, weight, power=1)


def typical_error(method: str, x: Tensor, weight: Tensor) -> float:
    """Typical upper bound of the root mean square error over the outputs; arguments as for `error_bound`."""
    return _bound(method, x, weight, power=2)


def _bound(method: str, x: Tensor, weight: Tensor, power: int) -> float:
    """Absolute values are taken to this power, 1 or 2, and its root at the end."""
    unit = torch.finfo(x.dtype).eps / 2
    image, taps = (tensor.detach().double().abs() ** power for tensor in (x, weight))
    channels, extent = weight.shape[1], weight.shape[-1]

    def roundings(count: float) -> float:
        return count * unit / (1 - count * unit) if power == 1 else count**0.5 * unit

    if method == "direct":
        size = taps.flatten(1).sum(dim=1).amax() * image.amax()
        return roundings(channels * extent**2) * size.item() ** (1 / power)
    elements = math.prod(transform_size(x.shape[-2:], weight.shape[-2:]))
    relative = roundings(3 * extent + 2 * channels + 10) + 20 * unit * math.log2(elements) ** (1 / power)
    # A guarantee must assume that one output takes it all; typically all have their part.
    norms = image.square().sum(dim=(2, 3)).sqrt() if power == 1 else image.mean(dim=(2, 3))
    return relative * (norms @ taps.sum(dim=(2, 3)).T).amax().item() ** (1 / power)
