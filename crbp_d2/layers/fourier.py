"""Convolution by Fourier transform: with zero padding, the size kept, differentiable any number of times.

N: batch; C, K: input and output channels; H x W: image size; E: kernel size, odd; L x M: size of the
transform; F = L (M // 2 + 1): its frequencies.

The three bilinear maps

    correlate        y[i] = sum over e of w[e] x[i + e - E//2]      (torch's convolution)
    transpose        its transpose in x
    kernel_gradient  its gradient in w

are each other's derivatives, so autograd never has to look inside a transform.
"""

import functools
import math

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.grad import conv2d_weight

from crbp_d2.utils.tracing import is_batched

from .bilinear import bilinear
from .tensors import widen

Size = tuple[int, int]

# Products of spectra that are made at a time for a kernel's gradient, 8 MiB in float32.
PRODUCTS = 2**20


def transform_size(image: Size, kernel: Size) -> Size:
    """L, M: the next numbers with no prime factor above 7 that leave E//2 zeros next to the image.

    The circular correlation then wraps around into these zeros, or on outputs outside the image.
    """
    height, width = (_smooth(extent + size // 2) for extent, size in zip(image, kernel, strict=True))
    return height, width


def _smooth(number: int) -> int:
    while True:
        rest = number
        for prime in (2, 3, 5, 7):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return number
        number += 1


def correlate(x: Tensor, weight: Tensor, spectrum: Tensor) -> Tensor:
    """The convolution of F.conv2d with padding E//2.

    Args:
        x: N x C x H x W, N at least 1, float32 or float64.
        weight: K x C x E x E, of the same precision.
        spectrum: F x K x C, see kernel_spectrum.

    Returns:
        N x K x H x W.
    """
    image, kernel = x.shape[-2:], weight.shape[-2:]
    if is_batched((x, weight)):
        return F.conv2d(x, weight, padding=kernel[0] // 2)
    size = transform_size(image, kernel)
    return bilinear(
        x,
        weight,
        lambda: _invert(_transform(x, size) @ spectrum.mT, size, image),
        lambda g, weight: transpose(g, weight, spectrum),
        lambda g, x: kernel_gradient(x, g, kernel),
    )


def transpose(g: Tensor, weight: Tensor, spectrum: Tensor) -> Tensor:
    """The gradient of `correlate` in x. g: N x K x H x W; the result: N x C x H x W."""
    image, kernel = g.shape[-2:], weight.shape[-2:]
    if is_batched((g, weight)):
        # Torch cannot vectorize all steps of a transform.
        return F.conv_transpose2d(g, weight, padding=kernel[0] // 2)
    size = transform_size(image, kernel)
    return bilinear(
        g,
        weight,
        lambda: _invert(_transform(g, size, conjugate=True) @ spectrum, size, image, conjugate=True),
        lambda u, weight: correlate(u, weight, spectrum),
        lambda u, g: kernel_gradient(u, g, kernel),
    )


def kernel_gradient(x: Tensor, g: Tensor, kernel: Size) -> Tensor:
    """The gradient of `correlate` in the weight. x: N x C x H x W; g: N x K x H x W; the result: K x C x E x E."""
    size = transform_size(x.shape[-2:], kernel)
    if is_batched((x, g)):
        return conv2d_weight(x, (g.shape[1], x.shape[1], *kernel), g, padding=kernel[0] // 2)
    return bilinear(
        x,
        g,
        lambda: _kernel_of_products(_transform(g, size, conjugate=True), _transform(x, size), size, kernel),
        lambda v, g: transpose(g, v, kernel_spectrum(v, size)),
        lambda v, x: correlate(x, v, kernel_spectrum(v, size)),
    )


def _transform(x: Tensor, size: Size, conjugate: bool = False) -> Tensor:
    """N x C x H x W -> F x N x C, or its conjugate."""
    y = torch.fft.rfft2(x, s=size)
    return (y.conj() if conjugate else y).permute(2, 3, 0, 1).flatten(0, 1).contiguous().resolve_conj()


def _invert(y: Tensor, size: Size, image: Size, conjugate: bool = False) -> Tensor:
    """F x N x K, or its conjugate, -> N x K x H x W."""
    height, width = image
    # Columns first, contiguous in memory; the empty rows below the image are then skipped.
    y = y.unflatten(0, (size[0], -1))
    # The inverse of a conjugate is the conjugate of the forward transform.
    y = torch.fft.fft(y, dim=0, norm="forward").conj() if conjugate else torch.fft.ifft(y, dim=0)
    return torch.fft.irfft(y[:height].permute(2, 3, 0, 1), n=size[1])[..., :width].contiguous()


@torch.no_grad()
def kernel_spectrum(weight: Tensor, size: Size) -> Tensor:
    """K x C x E x E -> F x K x C: the conjugate transform of a kernel with its centre at 0, in float32 or wider.

    A kernel is much smaller than the transform, so that two products with E columns of the Fourier
    matrices take less time than a fast transform of all the zeros, and leave the frequencies first.
    """
    maps, kernel = weight.shape[:2], weight.shape[-2:]
    weight = widen(weight)
    rows, columns = (_roots(*sizes, weight.dtype, weight.device) for sizes in zip(size, kernel, strict=True))
    half = columns[: size[1] // 2 + 1] @ weight.permute(2, 3, 0, 1).flatten(2).to(columns.dtype)
    return (rows @ half.flatten(1)).view(-1, *maps)


def _kernel_of_products(g: Tensor, x: Tensor, size: Size, kernel: Size) -> Tensor:
    """F x N x K and F x N x C -> K x C x E x E: the inverse transform of the products over N, at the kernel's places.

    The kernel's centre is at 0. The products of all frequencies are much larger than the kernel: they are made a few
    rows of frequencies at a time, and summed up.
    """
    maps, channels = g.shape[-1], x.shape[-1]
    rows, columns = (_roots(*sizes, x.real.dtype, x.device) for sizes in zip(size, kernel, strict=True))
    columns = columns[: size[1] // 2 + 1].clone()
    # The other half of the frequencies are conjugates, which double the real part.
    columns[1 : (size[1] + 1) // 2] *= 2
    count = len(columns)
    step = max(1, PRODUCTS // (count * maps * channels))
    half = x.new_zeros(kernel[0], count * maps * channels)
    parts = (tensor.split(step * count) for tensor in (g, x))
    for roots, left, right in zip(rows.split(step), *parts, strict=True):
        half.addmm_(roots.mT, (left.mT @ right).view(len(roots), -1))
    weight = (columns.mT @ half.view(kernel[0], count, -1)).real / math.prod(size)
    return weight.view(*kernel, maps, channels).permute(2, 3, 0, 1).contiguous()


@functools.lru_cache(maxsize=64)
def _roots(length: int, extent: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """exp(2 pi i j k / length), j = 0 ... length - 1, k = -extent//2 ... extent//2; shared, so never written to.

    Made on the device and kept: a GPU would wait for the host at every copy.
    """
    with torch.inference_mode(False):
        j = torch.arange(length, device=device)
        k = torch.arange(extent, device=device) - extent // 2
        # Whole turns are taken off in integers, and the rest in float64, or large j k would cost digits.
        angle = (j[:, None] * k % length).double() * (2 * math.pi / length)
        return torch.polar(torch.ones_like(angle), angle).to(dtype.to_complex())
