"""Winograd's convolution against torch's: values, first and second derivatives, precision, and what is shared."""

import pytest
import torch
from torch.nn import functional as F

from crbp_d2.layers import winograd
from crbp_d2.layers.winograd import KERNEL, TransformedKernel, correlate

# B^T and A^T of F(4 x 4, 3 x 3) (Lavin & Gray 2016).
DATA = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
OUTPUT = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))

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


def test_second_derivatives_by_finite_differences():
    x, weight, _ = problem((1, 2, 3, 4, 2))
    assert torch.autograd.gradgradcheck(lambda x, w: correlate(x, w, TransformedKernel(w)), (x, weight))


def test_float32_errs_within_the_bound_of_its_transforms():
    """Of every element: rounding of a chain of bilinear maps, by the sum of the magnitudes that pass through it.

    A product of a sum over C channels with transforms of six terms in each of two directions on the way in and out has
    at most C + 40 roundings; the sums are those of the transforms' absolute values (Higham 2002, section 3.1).
    """
    x, weight, _ = problem((2, 64, 14, 14, 64))
    x, weight = x.detach(), weight.detach()
    single = x.float(), weight.float()
    ours = correlate(*single, TransformedKernel(single[1])).double()
    truth = F.conv2d(*(part.double() for part in single), padding=1)
    kernel, data, output = (torch.tensor(rows, dtype=torch.float64).abs() for rows in (KERNEL, DATA, OUTPUT))
    padded = F.pad(x.abs(), (1, 5, 1, 5))[..., :18, :18]
    tiles = padded.unfold(2, 6, 4).unfold(3, 6, 4)
    tiles = torch.einsum("ai,ncrqij,bj->ncrqab", data, tiles, data)
    products = torch.einsum(
        "ncrqab,kcab->nkrqab", tiles, torch.einsum("ai,kcij,bj->kcab", kernel, weight.abs(), kernel)
    )
    sums = torch.einsum("ua,nkrqab,vb->nkruqv", output, products, output).flatten(4).flatten(2, 3)[..., :14, :14]
    bound = (64 + 40) * torch.finfo(torch.float32).eps / 2 * sums
    assert ((ours - truth).abs() <= bound).all()
    assert sums.mean() < 300 * F.conv2d(x.abs(), weight.abs(), padding=1).mean()


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


def test_kernels_may_share_the_room_they_work_in():
    x, weight, g = problem((2, 3, 6, 8, 3))
    memory = {}
    weights = [weight.detach() * scale for scale in (1, -2)]
    kernels = [TransformedKernel(w, memory) for w in weights]
    for _ in range(2):
        for w, kernel in zip(weights, kernels, strict=True):
            torch.testing.assert_close(correlate(x, w, kernel), F.conv2d(x, w, padding=1))
    alone = {}
    correlate(x, weights[0], TransformedKernel(weights[0], alone))
    assert memory.keys() == alone.keys()
