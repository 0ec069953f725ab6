"""Winograd's convolution against torch's: values, first and second derivatives, precision, and what is shared."""

import pytest
import torch
from torch.nn import functional as F

from crbp_d2.layers import winograd
from crbp_d2.layers.winograd import TransformedKernel, correlate

SHAPES = [(2, 3, 6, 8, 4), (1, 2, 7, 5, 3), (3, 1, 1, 1, 2), (2, 4, 2, 9, 1)]


def problem(shape, dtype=torch.float64):
    n, channels, height, width, maps = shape
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, channels, height, width, generator=generator, dtype=dtype)
    weight = torch.randn(maps, channels, 3, 3, generator=generator, dtype=dtype)
    g = torch.randn(n, maps, height, width, generator=generator, dtype=dtype)
    return x.requires_grad_(), weight.requires_grad_(), g


@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients_are_those_of_the_direct_convolution(shape):
    x, weight, g = problem(shape)
    ours, truth = correlate(x, weight, TransformedKernel(weight)), F.conv2d(x, weight, padding=1)
    torch.testing.assert_close(ours, truth, rtol=1e-12, atol=1e-12)
    found, expected = (torch.autograd.grad(y, (x, weight), g, create_graph=True) for y in (ours, truth))
    second = []
    for gradients in (found, expected):
        again = sum(gradient.sin().sum() for gradient in gradients)
        second.append(torch.autograd.grad(again, (x, weight)))
    for a, b in zip((*found, *second[0]), (*expected, *second[1]), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_images_stay_in_their_layout(layout):
    x, weight, g = problem(SHAPES[0])
    x, g = (image.detach().contiguous(memory_format=layout).requires_grad_() for image in (x, g))
    y = correlate(x, weight, TransformedKernel(weight))
    (gradient,) = torch.autograd.grad(y, x, g)
    for found, truth in ((y, F.conv2d(x, weight, padding=1)), (gradient, F.conv_transpose2d(g, weight, padding=1))):
        assert found.is_contiguous(memory_format=layout)
        torch.testing.assert_close(found, truth, rtol=1e-12, atol=1e-12)


def test_second_derivatives_by_finite_differences():
    x, weight, _ = problem((1, 2, 3, 4, 2))
    assert torch.autograd.gradgradcheck(lambda x, w: correlate(x, w, TransformedKernel(w)), (x, weight))


def test_transforms_are_their_matrices():
    x = torch.randn(6, 5, 7, dtype=torch.float64)
    for matrix, transform in (
        (winograd.INPUT, winograd._transform_input),
        (winograd.OUTPUT, winograd._transform_output),
    ):
        out = torch.empty(len(matrix), 5, 7, dtype=torch.float64)
        transform(x.unbind(), out.unbind(), torch.empty(2, 5, 7, dtype=torch.float64))
        truth = torch.einsum("ij,jkl->ikl", torch.tensor(matrix, dtype=torch.float64), x)
        torch.testing.assert_close(out, truth, rtol=0, atol=1e-13)


def test_samples_are_computed_in_equal_blocks(monkeypatch):
    x, weight, _ = problem((7, 3, 6, 8, 4))
    whole = correlate(x, weight, TransformedKernel(weight))
    # A tile has 36 coefficients of 4 channels, a sample 4 tiles: blocks of at most 3.
    monkeypatch.setattr(winograd, "BLOCK", 3 * 4 * 36 * 4)
    shapes = []
    filter_tiles = winograd._filter_tiles
    monkeypatch.setattr(winograd, "_filter_tiles", lambda x, *more: shapes.append(len(x)) or filter_tiles(x, *more))
    torch.testing.assert_close(correlate(x, weight, TransformedKernel(weight)), whole, rtol=0, atol=1e-12)
    assert shapes == [3, 2, 2]


def test_a_transform_is_computed_once_and_results_are_not_overwritten(monkeypatch):
    x, weight, g = problem((2, 3, 6, 8, 4))
    calls, einsum = [], torch.einsum
    monkeypatch.setattr(winograd.torch, "einsum", lambda *args: calls.append(1) or einsum(*args))
    kernel = TransformedKernel(weight)
    first = correlate(x, weight, kernel)
    kept = first.detach().clone()
    second = correlate(x * 2, weight, kernel)
    for y in (first, second, first):
        torch.autograd.grad(y, x, g, retain_graph=True)
    assert len(calls) == 2  # the kernel's, and its mirror image's
    assert torch.equal(first, kept)
    # Another size in the same memory: the border is zero again.
    smaller = x[:1, :, :3, :5]
    torch.testing.assert_close(correlate(smaller, weight, kernel), F.conv2d(smaller, weight, padding=1))
    torch.testing.assert_close(correlate(x, weight, kernel), first)


def test_a_gradient_of_the_state_alone_costs_no_kernel_gradient(monkeypatch):
    x, weight, g = problem((2, 3, 6, 8, 4))
    y = correlate(x, weight, TransformedKernel(weight))
    monkeypatch.setattr(winograd, "kernel_gradient", lambda *args: pytest.fail("nobody reads it"))
    (found,) = torch.autograd.grad(y, x, g)
    torch.testing.assert_close(found, F.conv_transpose2d(g, weight, padding=1), rtol=1e-12, atol=1e-12)
