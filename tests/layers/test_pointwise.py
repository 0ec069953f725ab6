"""1 x 1 convolutions: the same for every layout and batch, to any derivative."""

import pytest
import torch
from torch.nn import functional as F
from torch.nn.utils.parametrize import register_parametrization

from crbp_d2.layers import convolution
from crbp_d2.layers.convolution import FEW_WEIGHTS, FULL_BATCH, HorizontalConv2d


def pointwise(channels=2, bias=True):
    return HorizontalConv2d(5, channels, 1, bias=bias)


def image(batch, layout, height=3):
    x = torch.randn(batch, 5, height, 4, generator=torch.Generator().manual_seed(batch), dtype=torch.float64)
    return x.contiguous(memory_format=layout).requires_grad_()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("batch", [0, 1, 2, FULL_BATCH - 1, FULL_BATCH])
@pytest.mark.parametrize("bias", [False, True])
def test_values_and_gradients(bias, batch, layout):
    conv, x = pointwise(bias=bias).double(), image(batch, layout)
    found, truth = conv(x), F.conv2d(x, conv.weight, conv.bias)
    torch.testing.assert_close(found, truth)
    assert found.stride() == truth.stride() or not batch
    inputs = (x, *conv.parameters())
    gradients = [torch.autograd.grad(y.sin().sum(), inputs) for y in (found, truth)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("bias", [False, True])
def test_second_derivatives(bias, layout):
    conv, x = pointwise().double(), image(2, layout)
    if not bias:
        conv.bias = None
    inputs = (x, *conv.parameters())

    def call(x, *parameters):
        return torch.func.functional_call(conv, dict(zip(("weight", "bias"), parameters, strict=False)), (x,))

    assert torch.autograd.gradcheck(call, inputs) and torch.autograd.gradgradcheck(call, inputs)


@pytest.fixture
def convolved(monkeypatch):
    """Batches that torch's convolution gets."""
    batches = []
    plain = F.conv2d
    monkeypatch.setattr(convolution.F, "conv2d", lambda x, *more: batches.append(len(x)) or plain(x, *more))
    return batches


def test_few_images_are_computed_as_rows(convolved):
    conv = pointwise().double()
    for batch in (1, 2, FULL_BATCH):
        conv(image(batch, torch.channels_last, height=14))
    assert convolved == [14, 28, FULL_BATCH]


def test_few_channels_are_products_of_matrices(convolved):
    x = image(2, torch.contiguous_format)
    for channels in (2, FEW_WEIGHTS):
        pointwise(channels).double()(x)
    assert convolved == [2]  # only of the many channels


@pytest.mark.parametrize("bias", [False, True])
def test_under_autocast_it_computes_as_any_convolution_does(bias):
    conv, x = pointwise(bias=bias), image(2, torch.contiguous_format).detach().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, truth = conv(x), F.conv2d(x, conv.weight, conv.bias)
    assert found.dtype == truth.dtype
    torch.testing.assert_close(found, truth)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_the_weight_is_read_once(layout):
    """As by torch's convolution: spectral norm, for one, goes on by a step at every look."""
    looks = []

    class Counted(torch.nn.Module):
        def forward(self, weight):
            looks.append(weight)
            return 2 * weight

    conv, x = pointwise().double(), image(2, layout)
    truth = F.conv2d(x, 2 * conv.weight, conv.bias)
    register_parametrization(conv, "weight", Counted())
    looks.clear()
    torch.testing.assert_close(conv(x), truth)
    assert len(looks) == 1


@pytest.mark.parametrize("shape", [(2, 4, 3, 4), (5,)])
def test_mismatched_shapes_are_rejected_by_torch(shape):
    with pytest.raises(RuntimeError, match="conv|channels"):
        pointwise()(torch.zeros(shape))


def test_it_is_exported_as_one_convolution():
    conv, x = pointwise(), image(2, torch.channels_last).detach().float()
    nodes = torch.export.export(conv, (x,)).graph.nodes
    assert [node.target for node in nodes if node.op == "call_function"] == [torch.ops.aten.conv2d.default]
