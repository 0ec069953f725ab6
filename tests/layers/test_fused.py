"""Fused chains against the same by plain autograd, whatever their size: values, derivatives, calls, what is kept."""

import gc
import math
from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.autograd import grad, gradcheck, gradgradcheck
from torch.autograd.functional import hessian
from torch.autograd.graph import disable_saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

import crbp_d2.layers.fused as module
from crbp_d2.cells import GalaHGRUCell, HGRUCell
from crbp_d2.layers.cache import many_products
from crbp_d2.layers.fused import fused
from crbp_d2.recurrence import RULES, learning_rule, spectral_radius

SHAPE = (2, 3, 4, 2)
LAYOUTS = [torch.contiguous_format, torch.channels_last]
# Elements up to which a chain is plain, and those of a slice: whole planes, and parts of a row.
SIZES = [(math.inf, 1), (16, 100), (16, 16), (16, 7)]


@pytest.fixture(params=SIZES, ids=str)
def sizes(request, monkeypatch):
    monkeypatch.setattr(module, "WHOLE", request.param[0])
    monkeypatch.setattr(module, "SLICE", request.param[1])


@pytest.fixture
def sliced(monkeypatch):
    monkeypatch.setattr(module, "WHOLE", 16)
    monkeypatch.setattr(module, "SLICE", 8)


@pytest.fixture(params=["differentiated once", "many products"])
def recording(request):
    """A step that is recorded for one backward pass, and one for a series."""
    with many_products() if request.param == "many products" else nullcontext():
        yield


def tensor(*shape, layout=torch.contiguous_format, seed=0):
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return (x.contiguous(memory_format=layout) if len(shape) == 4 else x).requires_grad_()


def plain(h, spatial, drive, gain):
    """A chain of a state, a map that all channels share, a drive and a parameter."""
    return torch.tanh(drive - (gain * h).exp() * spatial.sin()) + gain * drive


chain = fused(fixed=["drive", "gain"])(plain)


def arguments(layout=torch.contiguous_format):
    state = tensor(*SHAPE, layout=layout), tensor(2, 1, 4, 2, seed=1)
    return *state, tensor(*SHAPE, layout=layout, seed=2), tensor(3, 1, 1, seed=3)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.usefixtures("sizes", "recording")
def test_values_and_derivatives(layout):
    inputs = arguments(layout)
    value = chain(*inputs)
    torch.testing.assert_close(value, plain(*inputs), rtol=1e-14, atol=1e-14)
    assert value.stride() == inputs[0].stride()
    assert gradcheck(chain, inputs) and gradgradcheck(chain, inputs)


@pytest.mark.usefixtures("sizes", "recording")
def test_third_derivative_of_repeated_arguments():
    def third(function):
        x, gain = tensor(*SHAPE), tensor(3, 1, 1, seed=3)
        first = grad(function(x, x, x, gain).square().sum(), (x, gain), create_graph=True)
        second = grad(sum(part.sin().sum() for part in first), (x, gain), create_graph=True)
        return grad(sum(part.square().sum() for part in second), (x, gain))

    torch.testing.assert_close(third(chain), third(plain), rtol=1e-10, atol=1e-10)


def held(gain):
    return fused(fixed=["z"])(lambda h, z: h.tanh() * gain + z)


UNUSUAL = {
    "an argument of where": lambda h, z: torch.where(h > 0, z, -z),
    "a detached argument": lambda h, z: z * h.detach(),
    "an unused argument": lambda h, z: z * 2,
    "a sign": lambda h, z: torch.sign(h) + z,
    "a value without a gradient": lambda h, z: (h > 0).to(z.dtype) + z.detach(),
    "another precision": lambda h, z: (h * z).float(),
    "a tensor that fits the whole": lambda h, z: h * z + tensor(*SHAPE, seed=5).detach(),
    "a tensor that fits the channels": lambda h, z: h * z + tensor(3, 1, 1, seed=5).detach(),
}


@pytest.mark.parametrize("name", UNUSUAL)
@pytest.mark.usefixtures("sizes", "recording")
def test_functions_of_unusual_graphs(name):
    function, inputs = UNUSUAL[name], (tensor(*SHAPE), tensor(*SHAPE, seed=1))
    found, truth = fused(fixed=["z"])(function)(*inputs), function(*inputs)
    assert found.dtype == truth.dtype and torch.equal(found, truth)
    if truth.requires_grad:
        for ours, expected in zip(
            *(grad(y.sum(), inputs, allow_unused=True, materialize_grads=True) for y in (found, truth)), strict=True
        ):
            torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("shape", [(), (3, 1, 1)], ids=str)
@pytest.mark.usefixtures("sizes", "recording")
def test_a_parameter_held_by_the_function_is_trained(shape):
    gain, h, z = tensor(*shape, seed=4), tensor(*SHAPE), tensor(*SHAPE, seed=1)
    found = grad(held(gain)(h, z).square().sum(), (gain, h, z))
    torch.testing.assert_close(found, grad((h.tanh() * gain + z).square().sum(), (gain, h, z)))


@pytest.mark.usefixtures("sizes", "recording")
def test_dropout_has_one_mask_for_value_and_gradient():
    h = tensor(*SHAPE)
    torch.manual_seed(0)
    value = fused()(lambda h: torch.dropout(h, 0.5, True) * h)(h)
    drawn = torch.get_rng_state()
    torch.manual_seed(0)
    truth = torch.dropout(h, 0.5, True) * h
    assert torch.equal(value, truth) and torch.equal(drawn, torch.get_rng_state())
    torch.testing.assert_close(grad(value.sum(), h), grad(truth.sum(), h))


def counted():
    """The chain, and a list that grows by the elements of its calls."""
    calls = []

    def call(h, spatial, drive, gain):
        calls.append(h.numel())
        return plain(h, spatial, drive, gain)

    return fused(fixed=["drive", "gain"])(call), calls


def test_small_tensors_are_left_to_autograd():
    function, calls = counted()
    inputs = arguments()
    found = grad(function(*inputs).sum(), inputs)
    torch.testing.assert_close(found, grad(plain(*inputs).sum(), inputs), rtol=0, atol=0)
    assert calls == [48]  # nothing is computed again for the gradients


@pytest.mark.usefixtures("sliced")
def test_a_series_evaluates_the_partial_derivatives_once():
    function, calls = counted()
    inputs = arguments()
    with many_products():
        value = function(*inputs)
    expected = plain(*inputs)
    assert sum(calls) == 48 and max(calls) <= 8
    for seed in range(3):
        g = tensor(*SHAPE, seed=seed).detach()
        found = grad(value, inputs[:2], g, retain_graph=True)
        torch.testing.assert_close(found, grad(expected, inputs[:2], g, retain_graph=True))
        assert sum(calls) == 96
    grad(value, inputs[2:], g)
    assert sum(calls) == 144


@pytest.mark.usefixtures("sliced")
def test_back_propagation_takes_one_pass_for_all_gradients():
    function, calls = counted()
    inputs = arguments()
    found = grad(function(*inputs).sin().sum(), inputs)
    torch.testing.assert_close(found, grad(plain(*inputs).sin().sum(), inputs))
    assert sum(calls) == 96


@pytest.mark.usefixtures("sizes", "recording")
def test_tensors_without_a_gradient():
    h, spatial, drive, gain = arguments()
    chain(h, spatial, drive.detach(), gain).sum().backward()
    torch.testing.assert_close(gain.grad, grad(plain(h, spatial, drive, gain).sum(), gain)[0])
    with torch.no_grad():
        assert not chain(h, spatial, drive, gain).requires_grad
    assert not chain(*(t.detach() for t in arguments())).requires_grad


@pytest.mark.usefixtures("sizes", "recording")
def test_an_output_may_be_written_to_but_not_an_input():
    inputs = arguments()
    value = chain(*inputs)
    value.mul_(2)
    torch.testing.assert_close(grad(value.sum(), inputs, retain_graph=True), grad(2 * plain(*inputs).sum(), inputs))
    with torch.no_grad():
        inputs[3].add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        grad(value.sum(), inputs[:2])


@pytest.mark.usefixtures("sizes", "recording")
def test_transforms_and_vectorized_gradients():
    inputs = arguments()
    tensors = tuple(t.detach() for t in inputs)
    for transform in (lambda f: torch.func.jacrev(f, (0, 3))(*tensors), lambda f: torch.func.jvp(f, tensors, tensors)):
        for ours, truth in zip(transform(chain), transform(plain), strict=True):
            torch.testing.assert_close(ours, truth)
    g = torch.stack([tensor(*SHAPE, seed=seed).detach() for seed in range(3)])
    for create_graph in (False, True):
        ours, truth = (
            grad(f(*inputs), inputs, g, is_grads_batched=True, create_graph=create_graph) for f in (chain, plain)
        )
        torch.testing.assert_close(ours, truth)
    second = [hessian(lambda h, f=f: f(h, *tensors[1:]).sum(), tensors[0], vectorize=True) for f in (chain, plain)]
    torch.testing.assert_close(*second)


@pytest.mark.usefixtures("sizes")
def test_vectorized_gradients_after_kept_derivatives():
    inputs = arguments()
    with many_products():
        value = chain(*inputs)
    grad(value.sum(), inputs[:2], retain_graph=True)
    g = torch.stack([tensor(*SHAPE, seed=seed).detach() for seed in range(3)])
    found = grad(value, inputs, g, is_grads_batched=True)
    torch.testing.assert_close(found, grad(plain(*inputs), inputs, g, is_grads_batched=True))


@pytest.mark.usefixtures("sizes", "recording")
def test_hooks_for_saved_tensors_may_be_disabled_or_checkpoints():
    inputs = arguments()
    truth = grad(plain(*inputs).square().sum(), inputs)
    with disable_saved_tensors_hooks("none here"):
        torch.testing.assert_close(grad(chain(*inputs).square().sum(), inputs), truth)

    def outer(*inputs):
        value = chain(*inputs)
        (first,) = grad(value.sum(), inputs[0], create_graph=True)
        return value.square().sum() + 0 * first.sum()

    torch.testing.assert_close(grad(checkpoint(outer, *inputs, use_reentrant=False), inputs), truth)


class Checkpointed(HGRUCell):
    def forward(self, drive, state):
        return checkpoint(super().forward, drive, state, use_reentrant=False)


@pytest.mark.parametrize("rule", ["bptt", "rbp", "crbp"])
@pytest.mark.usefixtures("sizes")
def test_a_cell_that_checkpoints_its_own_step(rule):
    found = []
    for cls in (HGRUCell, Checkpointed):
        torch.manual_seed(0)
        cell = cls(3, 3, norm="GN").double()
        output = learning_rule(rule, cell, steps=3, num_terms=2)(tensor(2, 3, 4, 4).detach())
        found.append(grad(output.state[0].square().sum() + output.penalty, list(cell.parameters())))
    torch.testing.assert_close(*found)


@pytest.mark.usefixtures("sizes")
def test_spectral_radius_in_inference_mode():
    torch.manual_seed(0)
    cell = HGRUCell(2, 3, norm="GN").double()
    drive = tensor(1, 2, 4, 4).detach()
    truth = spectral_radius(cell, drive, cell.initial_state(drive))
    with torch.inference_mode():
        found = spectral_radius(cell, drive, cell.initial_state(drive))
    assert truth[0] > 0
    torch.testing.assert_close(found, truth, rtol=1e-4, atol=0)


def alive():
    gc.collect()
    return sum(issubclass(type(item), torch.Tensor) for item in gc.get_objects())


@pytest.mark.parametrize("sizes", [(math.inf, 1), (16, 16)], ids=str, indirect=True)
@pytest.mark.parametrize("cls,rule", [*((HGRUCell, rule) for rule in RULES), (GalaHGRUCell, "crbp")])
@pytest.mark.filterwarnings("ignore::crbp_d2.recurrence.UnconvergedWarning")
def test_no_tensor_survives_a_training_step(cls, rule, sizes):
    torch.manual_seed(0)
    cell = cls(4, 3, norm="GN")
    recurrence = learning_rule(rule, cell, steps=3, truncation=2, num_terms=2, max_steps=3)
    drive = torch.randn(2, 4, 5, 5)
    counts = []
    for _ in range(3):
        output = recurrence(drive)
        (output.state[0].square().sum() + output.penalty).backward()
        recurrence.last_stats = None
        del output
        cell.zero_grad()
        counts.append(alive())
    assert counts[0] == counts[1] == counts[2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.usefixtures("sizes")
def test_other_precisions(dtype):
    tensors = [t.detach().to(dtype) for t in arguments()]
    value = chain(*tensors)
    assert value.dtype == dtype
    torch.testing.assert_close(value, plain(*tensors))
    assert chain(tensors[0], tensors[1].double(), *tensors[2:]).dtype == torch.float64


class Layer(nn.Module):
    def forward(self, *tensors):
        return chain(*tensors)


@pytest.mark.usefixtures("sizes")
def test_a_chain_is_compiled_without_a_graph_break():
    inputs = arguments()
    compiled = torch.compile(Layer(), backend="eager", fullgraph=True)
    found = grad(compiled(*inputs).square().sum(), inputs)
    torch.testing.assert_close(found, grad(plain(*inputs).square().sum(), inputs))
