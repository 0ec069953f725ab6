"""Convolution by Fourier transform against torch's own."""

import pytest
import torch
from torch.nn import functional as F

from crbp_d2.layers import fourier
from crbp_d2.layers.fourier import correlate, kernel_gradient, kernel_spectrum, transform_size, transpose

# H, W, E: odd and even, not square, smaller than the kernel, a single pixel; transforms of odd and even length.
SIZES = [(1, 1, 1), (7, 10, 1), (6, 9, 3), (11, 8, 5), (13, 13, 7), (3, 4, 9), (16, 5, 11), (1, 20, 13), (10, 12, 15)]


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def fft(x, weight):
    return correlate(x, weight, kernel_spectrum(weight, transform_size(x.shape[-2:], weight.shape[-2:])))


@pytest.mark.parametrize("height,width,extent", SIZES)
def test_values_and_gradients_are_those_of_torch(height, width, extent):
    x, weight = normal(2, 3, height, width).requires_grad_(), normal(4, 3, extent, extent, seed=1).requires_grad_()
    g = normal(2, 4, height, width, seed=2)
    results = [(y, *torch.autograd.grad(y, (x, weight), g)) for y in
               (fft(x, weight), F.conv2d(x, weight, padding=extent // 2))]  # fmt: skip
    for ours, truth in zip(*results, strict=True):
        torch.testing.assert_close(ours, truth, rtol=0, atol=1e-12)


@pytest.mark.parametrize("height,width,extent", [(4, 3, 3), (2, 3, 5)])
def test_every_map_is_differentiable_twice(height, width, extent):
    size = transform_size((height, width), (extent, extent))
    x, g = normal(2, 2, height, width).requires_grad_(), normal(2, 1, height, width, seed=1).requires_grad_()
    weight = normal(1, 2, extent, extent, seed=2).requires_grad_()
    for function, inputs in (
        (fft, (x, weight)),
        (lambda g, weight: transpose(g, weight, kernel_spectrum(weight, size)), (g, weight)),
        (lambda x, g: kernel_gradient(x, g, (extent, extent)), (x, g)),
    ):
        assert torch.autograd.gradcheck(function, inputs)
        assert torch.autograd.gradgradcheck(function, inputs)


def test_a_kernels_gradient_is_computed_only_where_it_is_wanted(monkeypatch):
    calls = []
    plain = fourier._kernel_of_products
    monkeypatch.setattr(fourier, "_kernel_of_products", lambda *a: calls.append(0) or plain(*a))
    x, weight = normal(2, 3, 6, 6).requires_grad_(), normal(4, 3, 5, 5, seed=1).requires_grad_()
    y = fft(x, weight).sum()
    torch.autograd.grad(y, x, retain_graph=True)
    assert len(calls) == 0
    torch.autograd.grad(y, weight)
    assert len(calls) == 1


@pytest.mark.parametrize("length,smooth", [(1, 1), (11, 12), (13, 14), (157, 160), (167, 168), (2 * 11 * 13, 288)])
def test_transforms_have_no_large_prime_factors(length, smooth):
    assert transform_size((length, length), (1, 1)) == (smooth, smooth)


def test_the_products_for_a_kernels_gradient_are_made_in_parts(monkeypatch):
    """The same whatever the parts, down to a row of frequencies at a time."""
    x, g = normal(3, 2, 9, 8, seed=1), normal(3, 4, 9, 8, seed=2)
    truth = torch.nn.grad.conv2d_weight(x, (4, 2, 5, 5), g, padding=2)
    for products in (10**6, 300, 1):
        monkeypatch.setattr(fourier, "PRODUCTS", products)
        torch.testing.assert_close(fourier.kernel_gradient(x, g, (5, 5)), truth, rtol=1e-11, atol=1e-11)


def test_fourier_matrices_are_made_once_and_never_written_to():
    x, weight = normal(2, 2, 9, 8).requires_grad_(), normal(2, 2, 5, 5, seed=1).requires_grad_()
    fourier._roots.cache_clear()
    first = torch.autograd.grad(fft(x, weight).square().sum(), (x, weight))
    made = fourier._roots.cache_info().misses
    second = torch.autograd.grad(fft(x, weight).square().sum(), (x, weight))
    assert made == fourier._roots.cache_info().misses == 2
    assert all(map(torch.equal, first, second))
