"""Every method in every precision against the direct convolution in float64."""

from contextlib import nullcontext

import pytest
import torch
from torch.nn import functional as F

from crbp_d2.layers.convolution import METHODS, HorizontalConv2d

CASES = [(method, kernel_size) for method in METHODS for kernel_size in (1, 3, 15)]
# precision of weights and input, of autocast, of the result; largest relative error in the Euclidean norm
PRECISIONS = {
    "float64": (torch.float64, None, torch.float64, 1e-13),
    "float32": (torch.float32, None, torch.float32, 1e-5),
    "bfloat16 weights": (torch.bfloat16, None, torch.bfloat16, 0.01),
    "float16 weights": (torch.float16, None, torch.float16, 0.002),
    "bfloat16 autocast": (torch.float32, torch.bfloat16, torch.bfloat16, 0.01),
    "float16 autocast": (torch.float32, torch.float16, torch.float16, 0.002),
    "bfloat16 weights and autocast": (torch.bfloat16, torch.bfloat16, torch.bfloat16, 0.01),
}


def problem(method, kernel_size, dtype):
    torch.manual_seed(0)
    conv = HorizontalConv2d(6, 5, kernel_size, bias=True, method=method).to(dtype)
    x = torch.randn(3, 6, 13, 10).to(dtype).requires_grad_()
    g = torch.randn(3, 5, 13, 10).to(dtype)
    return conv, x, g


def relative_error(found, truth):
    return ((found.double() - truth).norm() / truth.norm()).item()


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("method,kernel_size", CASES)
def test_values_and_gradients(method, kernel_size, precision):
    dtype, autocast, result, tolerance = PRECISIONS[precision]
    if result == torch.bfloat16 and (method != "fft" or kernel_size == 1):
        # For some processors, torch's own convolution adds up in bfloat16.
        tolerance *= 2
    conv, x, g = problem(method, kernel_size, dtype)
    weight, bias, exact = (part.detach().double().requires_grad_() for part in (conv.weight, conv.bias, x))
    truth = F.conv2d(exact, weight, bias, padding=kernel_size // 2)
    truth_gradients = torch.autograd.grad(truth, (exact, weight, bias), g.double())
    context = nullcontext() if autocast is None else torch.autocast("cpu", autocast)
    with context:
        trained = conv(x)
    found = torch.autograd.grad(trained, (x, conv.weight, conv.bias), g.to(result))
    with context, torch.no_grad():
        inferred = conv(x)
    with context, torch.inference_mode():
        again = conv(x)
    assert trained.dtype == inferred.dtype == again.dtype == result
    assert torch.equal(trained, inferred) and torch.equal(trained, again)
    assert relative_error(trained, truth) < tolerance
    for ours, expected in zip(found, truth_gradients, strict=True):
        assert ours.dtype == dtype and relative_error(ours, expected) < tolerance


@pytest.mark.parametrize("dtype,tolerance", [(torch.float64, 1e-12), (torch.float32, 1e-4)])
@pytest.mark.parametrize("method,kernel_size", CASES)
def test_second_derivatives(method, kernel_size, dtype, tolerance):
    conv, x, _ = problem(method, kernel_size, dtype)
    weight, bias, exact = (part.detach().double().requires_grad_() for part in (conv.weight, conv.bias, x))

    def second(y, *inputs):
        first = torch.autograd.grad(y.sin().sum(), inputs[:2], create_graph=True)
        return torch.autograd.grad(sum(part.square().sum() for part in first), inputs)

    truth = second(F.conv2d(exact, weight, bias, padding=kernel_size // 2), exact, weight, bias)
    for ours, expected in zip(second(conv(x), x, conv.weight, conv.bias), truth, strict=True):
        assert relative_error(ours, expected) < tolerance


@pytest.mark.parametrize("method,kernel_size", [case for case in CASES if case[1] > 1])
def test_backward_under_autocast_computes_in_float32_too(method, kernel_size):
    conv, x, g = problem(method, kernel_size, torch.float32)
    outside = torch.autograd.grad(conv(x), (x, conv.weight), g)
    y = conv(x)
    with torch.autocast("cpu", torch.bfloat16):
        inside = torch.autograd.grad(y, (x, conv.weight), g)
    for ours, expected in zip(inside, outside, strict=True):
        torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("method", METHODS)
def test_mixed_precisions_are_rejected_by_torch(method):
    conv, x, _ = problem(method, 3, torch.float32)
    with pytest.raises(RuntimeError, match="type"):
        conv(x.double())


def test_a_bright_pixel_costs_a_transform_the_digits_of_dim_ones():
    """The error of "fft" is relative to the largest value of the image, that of "direct" to those a kernel reaches."""
    x, far = torch.randn(1, 4, 32, 32), (..., slice(20, 32), slice(20, 32))
    for method in ("direct", "fft"):
        conv, errors = HorizontalConv2d(4, 4, 5, method=method), []
        for scale in (1.0, 1e6):
            x[..., 4, 4] = scale
            truth = F.conv2d(x.double(), conv.weight.double(), padding=2)
            errors.append((conv(x) - truth)[far].abs().max().item())
        assert errors[1] > 1000 * errors[0] if method == "fft" else errors[1] == errors[0]
