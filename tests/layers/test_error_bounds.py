"""The errors of both methods against their bounds, and the bounds against a lower precision."""

import pytest
import torch
from helpers.error_bounds import error_bound, typical_error
from torch.nn import functional as F

from crbp_d2.layers.convolution import HorizontalConv2d

# method, kernel size, channels, image size, batch
CASES = [
    (method, *problem)
    for problem in ((3, 3, 9, 2), (3, 64, 14, 4), (5, 25, 30, 2), (7, 8, 48, 2), (15, 25, 40, 1))
    for method in ("direct", "fft")
]


def problem(kernel_size, channels, image, batch):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, channels, image, image, generator=generator)
    weight = torch.randn(channels, channels, kernel_size, kernel_size, generator=generator)
    return x, weight / weight[0].numel() ** 0.5


def by(method, x, weight):
    conv = HorizontalConv2d(weight.shape[1], len(weight), weight.shape[-1], method=method).requires_grad_(False)
    conv.weight.copy_(weight)
    return conv(x)


def error(found, x, weight):
    """Largest and root mean square error of a float32 result."""
    wrong = found.double() - F.conv2d(x.double(), weight.double(), padding=weight.shape[-1] // 2)
    return wrong.abs().max().item(), wrong.square().mean().sqrt().item()


@pytest.mark.parametrize("bright", [False, True])
@pytest.mark.parametrize("method,kernel_size,channels,image,batch", CASES)
def test_errors_are_within_the_bounds(method, kernel_size, channels, image, batch, bright):
    x, weight = problem(kernel_size, channels, image, batch)
    if bright:
        x[..., image // 2, image // 2] = 1e4
    largest, usual = error(by(method, x, weight), x, weight)
    assert 0 < largest < error_bound(method, x, weight)
    assert 0 < usual < typical_error(method, x, weight)


@pytest.mark.parametrize("method,kernel_size,channels,image,batch", CASES)
def test_products_in_a_lower_precision_exceed_the_typical_error(method, kernel_size, channels, image, batch):
    x, weight = problem(kernel_size, channels, image, batch)
    # A precision of 11 bits, as of TF32 and float16.
    _, usual = error(by(method, x.half().float(), weight.half().float()), x, weight)
    assert usual > typical_error(method, x, weight)


def test_a_bright_pixel_costs_a_transform_the_digits_of_dim_ones():
    """The error of "fft" is relative to the largest value of the image, that of "direct" to those a kernel reaches."""
    x, weight = problem(5, 4, 32, 1)
    far = (slice(None), slice(None), slice(20, 32), slice(20, 32))
    errors = {}
    for scale in (1.0, 1e6):
        x[..., 4, 4] = scale
        truth = F.conv2d(x.double(), weight.double(), padding=2)
        errors[scale] = {m: (by(m, x, weight) - truth)[far].abs().max().item() for m in ("direct", "fft")}
    assert errors[1e6]["fft"] > 1000 * errors[1.0]["fft"]
    assert errors[1e6]["direct"] == errors[1.0]["direct"]
