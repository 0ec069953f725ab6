"""1 x 1 convolutions: the same for every layout and batch, to any derivative."""

import pytest
import torch
from torch.nn import functional as F
from torch.nn.utils.parametrize import register_parametrization

from crbp_d2.layers.convolution import FEW_WEIGHTS, FULL_BATCH, PointwiseConv2d


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


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("bias", [False, True])
def test_second_derivatives(bias, layout):
    conv, x = PointwiseConv2d(5, 2).double(), image(2, layout)
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
    forward = torch.nn.Conv2d.forward
    monkeypatch.setattr(torch.nn.Conv2d, "forward", lambda self, x: batches.append(len(x)) or forward(self, x))
    return batches


def test_few_images_are_computed_as_rows(convolved):
    conv = PointwiseConv2d(5, 2).double()
    for batch in (1, 2, FULL_BATCH):
        conv(image(batch, torch.channels_last, height=14))
    assert convolved == [14, 28, FULL_BATCH]


def test_few_channels_are_products_of_matrices(convolved):
    x = image(2, torch.contiguous_format)
    for channels in (2, FEW_WEIGHTS):
        PointwiseConv2d(5, channels).double()(x)
    assert convolved == [2]  # of the many channels alone


@pytest.mark.parametrize("bias", [False, True])
def test_under_autocast_it_computes_as_any_convolution_does(bias):
    conv, x = PointwiseConv2d(5, 2, bias=bias), image(2, torch.contiguous_format).detach().float()
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

    conv, x = PointwiseConv2d(5, 2).double(), image(2, layout)
    truth = F.conv2d(x, 2 * conv.weight, conv.bias)
    register_parametrization(conv, "weight", Counted())
    looks.clear()
    torch.testing.assert_close(conv(x), truth)
    assert len(looks) == 1


def test_another_precision_is_refused_in_torchs_words():
    x = image(2, torch.contiguous_format)
    with pytest.raises(RuntimeError) as truth:
        torch.nn.Conv2d(5, 2, 1)(x)
    with pytest.raises(RuntimeError) as found:
        PointwiseConv2d(5, 2)(x)
    assert str(found.value) == str(truth.value)


@pytest.mark.parametrize("shape", [(2, 4, 3, 4), (5,)])
def test_what_does_not_fit_is_refused_in_torchs_words(shape):
    with pytest.raises(RuntimeError, match="conv|channels"):
        PointwiseConv2d(5, 2)(torch.zeros(shape))


def test_it_is_exported_as_one_convolution():
    conv, x = PointwiseConv2d(5, 2), image(2, torch.channels_last).detach().float()
    nodes = torch.export.export(conv, (x,)).graph.nodes
    assert [node.target for node in nodes if node.op == "call_function"] == [torch.ops.aten.conv2d.default]
