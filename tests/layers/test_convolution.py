"""The horizontal convolutions: the same by both methods, and how one of the two is chosen."""

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad
from torch.nn import functional as F

from crbp_d2.cells import ConvLSTMCell, FeedforwardControl, HGRUCell, build_cell
from crbp_d2.layers import channels_last, convolution, cost_model, fourier
from crbp_d2.layers.cache import solve_scope
from crbp_d2.layers.convolution import HorizontalConv2d, horizontal_convolution, set_convolution
from crbp_d2.layers.cost_model import Problem
from crbp_d2.recurrence import LipschitzPenalty, learning_rule
from crbp_d2.recurrence.diagnostics import trajectory


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def layer(method, channels=(3, 4), kernel_size=5, bias=False, dtype=torch.float64, seed=0):
    torch.manual_seed(seed)
    conv = horizontal_convolution(*channels, kernel_size, bias=bias).to(dtype)
    set_convolution(conv, method)
    return conv


@pytest.fixture
def transforms(monkeypatch):
    """The weights whose spectrum has been computed, one entry a time."""
    computed = []
    plain = fourier._transform_kernel

    def counted(weight, size):
        computed.append(weight.shape)
        return plain(weight, size)

    monkeypatch.setattr(fourier, "_transform_kernel", counted)
    return computed


@pytest.fixture
def timings(monkeypatch):
    """No choices yet; "benchmark" finds the methods of `timings.faster` to be the fastest. Lists what it times."""

    class Timings:
        faster = ("fft", "winograd")
        measured = []

    def fastest(calls, device):
        Timings.measured.append(list(calls))
        for call in calls.values():
            call()
        return next((method for method in calls if method in Timings.faster), "direct")

    monkeypatch.setattr(convolution, "_CHOICES", {})
    monkeypatch.setattr(convolution, "fastest", fastest)
    return Timings


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    "method,kernel_size", [("channels_last", 5), ("channels_last", 1), ("fft", 5), ("fft", 3), ("winograd", 3)]
)
def test_the_layer_is_the_same_by_every_method(method, kernel_size, bias):
    direct, by_transform = (layer(m, kernel_size=kernel_size, bias=bias) for m in ("direct", method))
    assert list(direct.state_dict()) == (["weight", "bias"] if bias else ["weight"])
    x = normal(2, 3, 9, 8)
    for conv in (direct, by_transform):
        conv(x).sin().sum().backward()
    torch.testing.assert_close(by_transform(x), direct(x), rtol=0, atol=1e-12)
    for ours, truth in zip(by_transform.parameters(), direct.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, truth.grad, rtol=0, atol=1e-11)


@pytest.mark.parametrize("method", convolution.METHODS)
def test_empty_batches(method):
    conv = layer(method, kernel_size=3, bias=True)
    x = torch.zeros(0, 3, 9, 8, dtype=torch.float64, requires_grad=True)
    y = conv(x)
    assert y.shape == (0, 4, 9, 8)
    y.sum().backward()
    assert x.grad.shape == x.shape and not conv.weight.grad.any()


@pytest.mark.parametrize("method", convolution.METHODS)
def test_wrong_shapes_get_torchs_own_message(method):
    with pytest.raises(RuntimeError, match=r"expected input\[2, 5, 9, 8\] to have 3 channels"):
        layer(method, kernel_size=3)(normal(2, 5, 9, 8))


def training_step(cell, drive, method, dtype=torch.float64):
    """Loss, penalty and the gradients of both, of C-RBP."""
    set_convolution(cell, method)
    cell.zero_grad()
    drive = drive.clone().requires_grad_()
    recurrence = learning_rule("crbp", cell, steps=4, num_terms=5, bound=0.0)
    output = recurrence(drive)
    loss = sum(part.sin().sum() for part in output.state) + 3 * output.penalty
    loss.backward()
    return [output.penalty.detach(), loss.detach(), drive.grad, *(p.grad.clone() for p in cell.parameters())]


@pytest.mark.parametrize("name", ["HGRUCell", "ConvLSTMCell", "GalaHGRUCell"])
@pytest.mark.parametrize("method,kernel_size", [("channels_last", 5), ("fft", 5), ("winograd", 3)])
def test_training_with_the_penalty_has_the_same_gradients(name, method, kernel_size):
    torch.manual_seed(0)
    cell = build_cell(name, 4, kernel_size=kernel_size).double()
    drive = normal(2, 4, 7, 6)
    truth = training_step(cell, drive, "direct")
    assert truth[0] > 0
    for ours, expected in zip(training_step(cell, drive, method), truth, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-11)


def test_second_gradients_through_the_penalty_alone():
    torch.manual_seed(0)
    cell = HGRUCell(3, 7, norm="GN").double()
    drive, h = normal(2, 3, 8, 5), normal(2, 3, 8, 5, seed=1).requires_grad_()
    found = []
    for method in ("direct", "fft", "channels_last"):
        set_convolution(cell, method)
        penalty = LipschitzPenalty(0.0)((h,), cell(drive, (h,)))
        found.append(torch.autograd.grad(penalty, [h, cell.inhibition.weight, cell.excitation.weight]))
    for truth, *ours in zip(*found, strict=True):
        assert truth.any()
        for gradient in ours:
            torch.testing.assert_close(gradient, truth, rtol=1e-9, atol=1e-12)


def test_a_training_step_computes_the_spectrum_of_each_weight_once(transforms):
    cell = HGRUCell(3, 5).double()
    training_step(cell, normal(2, 3, 8, 8), "fft")
    assert len(transforms) == 2
    training_step(ConvLSTMCell(3, 5).double(), normal(2, 3, 8, 8), "fft")
    assert sorted(transforms[2:]) == [(12, 3, 5, 5)] * 2
    del transforms[:]
    set_convolution(cell, "fft")
    trajectory(cell, normal(2, 3, 8, 8), steps=3)
    assert not transforms  # Those of the training step are still right.


def test_timing_under_autocast_leaves_the_gradients_alone(timings):
    network = FeedforwardControl(3, 5, num_layers=2)
    set_convolution(network, "benchmark")
    timings.faster = ()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        network(normal(2, 3, 9, 8, dtype=torch.float32)).float().sum().backward()
    assert list(convolution._CHOICES.values()) == ["direct", "direct"]
    assert all(p.grad is not None for p in network.parameters())


def test_benchmark_times_each_shape_once_and_keeps_its_choice(timings, transforms):
    conv = layer("benchmark")
    for batch in (3, 3, 4):
        conv(normal(batch, 3, 9, 8))
    assert timings.measured == [["direct", "channels_last", "fft"]] and len(transforms) == 1
    timings.faster = ()
    conv(normal(4, 3, 9, 8))
    layer("benchmark", seed=1)(normal(3, 3, 9, 8))
    assert len(timings.measured) == 1 and len(transforms) == 2
    for shape in ((5, 3, 9, 8), (4, 3, 9, 9)):
        conv(normal(*shape))
    conv.float()(normal(4, 3, 9, 8).float())
    layer("benchmark", kernel_size=7)(normal(4, 3, 9, 8))
    with solve_scope():
        conv.double()(normal(4, 3, 9, 8))
    assert len(timings.measured) == 5


def test_benchmark_does_not_try_small_kernels_and_huge_spectra(timings, transforms, monkeypatch):
    for kernel_size in (1, 3):
        layer("benchmark", kernel_size=kernel_size)(normal(2, 3, 9, 8))
    layer("benchmark", channels=(64, 31), kernel_size=3)(normal(2, 64, 9, 8))
    assert not timings.measured
    layer("benchmark", channels=(64, 32), kernel_size=3)(normal(2, 64, 9, 8))
    assert timings.measured == [["direct", "winograd"]] and not transforms
    monkeypatch.setattr(cost_model, "LARGEST_SPECTRUM", 3 * 4 * 12 * 6 - 1)
    layer("benchmark")(normal(2, 3, 10, 8))
    assert timings.measured[1:] == [["direct", "channels_last"]] and not transforms
    monkeypatch.setattr(convolution, "_CHOICES", {})
    monkeypatch.setattr(cost_model, "LARGEST_SPECTRUM", 3 * 4 * 12 * 6)
    layer("benchmark")(normal(2, 3, 10, 8))
    assert timings.measured[2:] == [["direct", "channels_last", "fft"]] and len(transforms) == 1


def test_benchmark_takes_the_fastest(timings, transforms, monkeypatch):
    called = []
    correlate = channels_last.correlate
    monkeypatch.setattr(channels_last, "correlate", lambda *args: called.append(True) or correlate(*args))
    x = normal(2, 3, 9, 8)
    conv = layer("benchmark")
    timings.faster = ("channels_last",)
    for _ in range(2):
        torch.testing.assert_close(conv(x), F.conv2d(x, conv.weight, padding=2), rtol=0, atol=1e-12)
    assert len(called) == 3 and len(transforms) == 1


def test_auto_takes_what_the_cost_model_says_and_says_so_once(monkeypatch, transforms, caplog):
    asked = []
    monkeypatch.setattr(convolution, "choose_method", lambda *args: asked.append(args) or "fft")
    conv = layer("auto")
    with caplog.at_level("INFO", logger="crbp_d2"):
        for size in (8, 9):
            x = normal(2, 3, 9, size)
            torch.testing.assert_close(conv(x), F.conv2d(x, conv.weight, padding=2), rtol=0, atol=1e-12)
    assert asked[0] == (Problem(2, 3, 4, 9, 8, 5), torch.float64, "cpu") and len(transforms) == 2
    (record,) = caplog.records
    assert "fft" in record.getMessage() and "5 x 5" in record.getMessage()


def test_auto_asks_for_the_precision_of_the_result(monkeypatch):
    asked = []
    monkeypatch.setattr(convolution, "choose_method", lambda *args: asked.append(args) or "direct")
    conv = layer("auto", dtype=torch.float32)
    x = normal(2, 3, 9, 8, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        conv(x)
    conv(x)
    assert [dtype for _, dtype, _ in asked] == [torch.bfloat16, torch.float32]


@pytest.mark.parametrize("method,kernel_size", [("channels_last", 5), ("fft", 5), ("winograd", 3)])
def test_what_is_asked_for_is_not_traced(method, kernel_size):
    """But compiled, with the call left out."""
    conv = layer(method, kernel_size=kernel_size)
    x = normal(2, 3, 9, 8)
    for attempt in (
        lambda: torch.export.export(conv, (x,)),
        lambda: torch.func.jvp(conv, (x,), (x,)),
        lambda: torch.vmap(conv)(x[:, None]),
        lambda: conv(x.to("meta")),
    ):
        with pytest.raises(RuntimeError, match=method):
            attempt()
    plain = layer("direct", kernel_size=kernel_size)
    compiled = torch.compile(conv, backend="eager")
    for module in (plain, compiled):
        module(x).sin().sum().backward()
    torch.testing.assert_close(conv.weight.grad, plain.weight.grad, rtol=0, atol=1e-11)


@pytest.mark.filterwarnings("ignore:`torch.jit.trace:FutureWarning")
@pytest.mark.parametrize("method", ["auto", "benchmark"])
def test_what_is_traced_is_computed_directly(method, timings, transforms, monkeypatch):
    monkeypatch.setattr(convolution, "choose_method", lambda *args: pytest.fail("no choice is to be made"))
    conv = layer(method)
    x = normal(2, 3, 9, 8)
    truth = F.conv2d(x, conv.weight, padding=2)
    # The values of tensors that forward mode or torch.func wraps.
    _, tangent = torch.func.jvp(conv, (x,), (x,))
    torch.testing.assert_close(tangent, truth, rtol=0, atol=1e-12)
    with forward_ad.dual_level():
        dual = conv(forward_ad.make_dual(x, 2 * x))
        torch.testing.assert_close(forward_ad.unpack_dual(dual).tangent, 2 * truth, rtol=0, atol=1e-12)
    torch.testing.assert_close(torch.vmap(conv)(x[:, None])[:, 0], truth, rtol=0, atol=1e-12)
    traced = torch.jit.trace(conv, x, check_trace=False)  # Which would call it untraced.
    torch.testing.assert_close(traced(x), truth, rtol=0, atol=1e-12)
    exported = torch.export.export(conv, (x,)).module()
    torch.testing.assert_close(exported(x), truth, rtol=0, atol=1e-12)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        assert conv(mode.from_tensor(x)).shape == truth.shape
    assert not timings.measured and not transforms


def test_forced_methods_are_obeyed(timings, transforms):
    for kernel_size in (3, 15):
        layer("direct", kernel_size=kernel_size)(normal(2, 3, 9, 8))
        assert not transforms
    for kernel_size in (1, 15):
        layer("fft", kernel_size=kernel_size)(normal(2, 3, 9, 8))
    assert len(transforms) == 2 and not timings.measured


def test_set_convolution_reaches_all_of_a_cell_and_refuses_unknown_methods():
    cell, control = HGRUCell(4, 5), FeedforwardControl(4, 5)
    for module, count in ((cell, 2), (control, 6)):
        set_convolution(module, "fft")
        methods = [part.method for part in module.modules() if isinstance(part, HorizontalConv2d)]
        assert methods == ["fft"] * count
    with pytest.raises(ValueError, match="convolution is 'gemm'; allowed: auto, benchmark, direct"):
        set_convolution(cell, "gemm")
    with pytest.raises(ValueError, match=r"convolution is 'winograd', but kernel_size is 5"):
        HorizontalConv2d(3, 4, 5, method="winograd")
