"""The horizontal convolutions: the same by both methods, and how one of the two is chosen."""

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad
from torch.nn import functional as F

from crbp_d2.cells import FeedforwardControl, HGRUCell, build_cell
from crbp_d2.layers import convolution
from crbp_d2.layers.convolution import METHODS, HorizontalConv2d, set_convolution
from crbp_d2.layers.cost_model import Problem
from crbp_d2.recurrence import learning_rule


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def layer(method, kernel_size=5, bias=False, dtype=torch.float64):
    torch.manual_seed(0)
    return HorizontalConv2d(3, 4, kernel_size, bias=bias, method=method).to(dtype)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_the_layer_is_the_same_by_both_methods(kernel_size, bias):
    direct, by_transform = (layer(m, kernel_size=kernel_size, bias=bias) for m in ("direct", "fft"))
    assert list(direct.state_dict()) == (["weight", "bias"] if bias else ["weight"])
    x = normal(2, 3, 9, 8)
    for conv in (direct, by_transform):
        conv(x).sin().sum().backward()
    torch.testing.assert_close(by_transform(x), direct(x), rtol=0, atol=1e-12)
    for ours, truth in zip(by_transform.parameters(), direct.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, truth.grad, rtol=0, atol=1e-11)


@pytest.mark.parametrize("method", METHODS)
def test_empty_batches(method):
    conv = layer(method, kernel_size=3, bias=True)
    x = torch.zeros(0, 3, 9, 8, dtype=torch.float64, requires_grad=True)
    y = conv(x)
    assert y.shape == (0, 4, 9, 8)
    y.sum().backward()
    assert x.grad.shape == x.shape and not conv.weight.grad.any()


@pytest.mark.parametrize("method", METHODS)
def test_wrong_shapes_get_torchs_own_message(method):
    with pytest.raises(RuntimeError, match=r"input\[2, 5, 9, 8\] to have 3 channels"):
        layer(method, kernel_size=3)(normal(2, 5, 9, 8))


def training_step(cell, drive, method):
    """Loss, penalty and the gradients of both, of C-RBP."""
    set_convolution(cell, method)
    cell.zero_grad()
    drive = drive.clone().requires_grad_()
    output = learning_rule("crbp", cell, steps=4, num_terms=5, bound=0.0)(drive)
    loss = sum(part.sin().sum() for part in output.state) + 3 * output.penalty
    loss.backward()
    return [output.penalty.detach(), loss.detach(), drive.grad, *(p.grad.clone() for p in cell.parameters())]


@pytest.mark.parametrize("name", ["HGRUCell", "ConvLSTMCell", "GalaHGRUCell"])
def test_training_with_the_penalty_has_the_same_gradients(name):
    torch.manual_seed(0)
    cell = build_cell(name, 4, kernel_size=5).double()
    drive = normal(2, 4, 7, 6)
    truth = training_step(cell, drive, "direct")
    assert truth[0] > 0
    for ours, expected in zip(training_step(cell, drive, "fft"), truth, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-11)


def test_auto_asks_the_cost_model_for_the_shape_and_precision(monkeypatch):
    asked = []
    monkeypatch.setattr(convolution, "choose_method", lambda *args: asked.append(args) or "fft")
    conv, x = layer("auto"), normal(2, 3, 9, 8)
    torch.testing.assert_close(conv(x), F.conv2d(x, conv.weight, padding=2), rtol=0, atol=1e-12)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        conv.float()(x.float())
    problem = Problem(2, 3, 4, 9, 8, 5)
    assert asked == [(problem, torch.float64, "cpu"), (problem, torch.bfloat16, "cpu")]


@pytest.mark.filterwarnings("ignore:`torch.jit.trace:FutureWarning")
@pytest.mark.parametrize("method", ["auto", "fft"])
def test_traced_and_transformed_calls_are_direct(method, monkeypatch):
    monkeypatch.setattr(HorizontalConv2d, "_by_fourier", lambda *args: pytest.fail("the direct method is expected"))
    conv = layer(method)
    x = normal(2, 3, 9, 8)
    truth = F.conv2d(x, conv.weight, padding=2)
    _, tangent = torch.func.jvp(conv, (x,), (x,))
    torch.testing.assert_close(tangent, truth, rtol=0, atol=1e-12)
    with forward_ad.dual_level():
        dual = conv(forward_ad.make_dual(x, 2 * x))
        torch.testing.assert_close(forward_ad.unpack_dual(dual).tangent, 2 * truth, rtol=0, atol=1e-12)
    torch.testing.assert_close(torch.vmap(conv)(x[:, None])[:, 0], truth, rtol=0, atol=1e-12)
    for record in (
        torch.jit.trace(conv, x, check_trace=False),  # A check would call it untraced.
        torch.export.export(conv, (x,)).module(),
        torch.compile(conv, backend="eager", fullgraph=True),
    ):
        torch.testing.assert_close(record(x), truth, rtol=0, atol=1e-12)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        assert conv(mode.from_tensor(x)).shape == truth.shape


@pytest.mark.parametrize("graph", [True, False])
def test_a_weight_is_used_in_the_layout_of_the_images(graph):
    conv = layer("direct", kernel_size=3, bias=True)
    x = normal(2, 3, 5, 6).contiguous(memory_format=torch.channels_last)
    with torch.set_grad_enabled(graph):
        y, truth = conv(x), F.conv2d(x, conv.weight, conv.bias, padding=1)
    torch.testing.assert_close(y, truth)
    assert y.is_contiguous(memory_format=torch.channels_last)
    if graph:
        gradients = [torch.autograd.grad(z.square().sum(), list(conv.parameters())) for z in (y, truth)]
        torch.testing.assert_close(*gradients)


def test_set_convolution_reaches_all_of_a_cell():
    cell, control = HGRUCell(4, 5), FeedforwardControl(4, 5)
    for module, count in ((cell, 4), (control, 6)):
        set_convolution(module, "fft")
        methods = [part.method for part in module.modules() if isinstance(part, HorizontalConv2d)]
        assert methods == ["fft"] * count
    for unknown in ("gemm", "winograd"):
        with pytest.raises(ValueError, match=f"convolution is '{unknown}'; allowed: auto, direct"):
            set_convolution(cell, unknown)
