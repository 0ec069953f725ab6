"""Weights of convolutions of channels-last images."""

import pytest
import torch
from torch.nn import functional as F

from crbp_d2.layers import channels_last
from crbp_d2.layers.convolution import HorizontalConv2d


@pytest.mark.parametrize("graph", [True, False])
def test_a_weight_is_brought_into_the_layout_of_the_images_once(graph):
    """Values and gradients are those of the weight as it is, also after it has changed."""
    conv = HorizontalConv2d(4, 3, 3, bias=True, method="direct").double()
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 4, 5, 6, generator=generator, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    for _ in range(2):
        with torch.set_grad_enabled(graph):
            y = conv(x)
        torch.testing.assert_close(y, F.conv2d(x, conv.weight, conv.bias, padding=1))
        if graph:
            truth = torch.autograd.grad(F.conv2d(x, conv.weight, padding=1).square().sum(), conv.weight)
            found = torch.autograd.grad((y - conv.bias[:, None, None].detach()).square().sum(), conv.weight)
            torch.testing.assert_close(found, truth)
        with torch.no_grad():
            conv.weight.mul_(-2)
    kept = [
        transform for transform in conv._transforms._kept.values() if isinstance(transform, channels_last.RelaidWeight)
    ]
    assert len(kept) == (not graph)
    assert all(transform.values.is_contiguous(memory_format=torch.channels_last) for transform in kept)
