"""1 x 1 convolutions: the same for every layout and batch, to any derivative."""

import pytest
import torch
from torch.nn import functional as F

from crbp_d2.layers.pointwise import FULL_BATCH, PointwiseConv2d


def image(batch, layout, height=3):
    x = torch.randn(batch, 5, height, 4, generator=torch.Generator().manual_seed(batch), dtype=torch.float64)
    return x.contiguous(memory_format=layout).requires_grad_()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("batch", [0, 1, 2, FULL_BATCH - 1, FULL_BATCH])
@pytest.mark.parametrize("bias", [False, True])
def test_values_and_gradients(bias, batch, layout):
    conv, x = PointwiseConv2d(5, 2, bias=bias).double(), image(batch, layout)
    found, truth = conv(x), F.conv2d(x, conv.weight, conv.bias)
    torch.testing.assert_close(found, truth)
    assert found.stride() == truth.stride() or not batch
    inputs = (x, *conv.parameters())
    gradients = [torch.autograd.grad(y.sin().sum(), inputs) for y in (found, truth)]
    torch.testing.assert_close(*gradients)


def test_second_derivatives():
    conv, x = PointwiseConv2d(5, 2).double(), image(2, torch.channels_last)
    inputs = x, conv.weight, conv.bias

    def call(x, weight, bias):
        return torch.func.functional_call(conv, {"weight": weight, "bias": bias}, (x,))

    assert torch.autograd.gradcheck(call, inputs) and torch.autograd.gradgradcheck(call, inputs)


def test_few_images_are_computed_as_rows(monkeypatch):
    batches = []
    forward = torch.nn.Conv2d.forward
    monkeypatch.setattr(torch.nn.Conv2d, "forward", lambda self, x: batches.append(len(x)) or forward(self, x))
    conv = PointwiseConv2d(5, 2).double()
    for batch in (1, 2, FULL_BATCH):
        conv(image(batch, torch.channels_last, height=14))
    conv(image(2, torch.contiguous_format))
    assert batches == [14, 28, FULL_BATCH, 2]


def test_it_is_exported_as_one_convolution():
    conv, x = PointwiseConv2d(5, 2), image(2, torch.channels_last).detach().float()
    nodes = torch.export.export(conv, (x,)).graph.nodes
    assert [node.target for node in nodes if node.op == "call_function"] == [torch.ops.aten.conv2d.default]
