"""Chains of element-wise operators against the same by autograd: values, derivatives, and how often they are called."""

from contextlib import nullcontext

import pytest
import torch
from torch.autograd import grad, gradcheck, gradgradcheck

from crbp_d2.layers import elementwise as module
from crbp_d2.layers.cache import many_products
from crbp_d2.layers.elementwise import elementwise

SHAPE = (2, 3, 4, 2)
LAYOUTS = [torch.contiguous_format, torch.channels_last]
# SLICE: tensors of 48 elements at once, and in slices of planes and of parts of a row.
SIZES = [100, 16, 7]


@pytest.fixture(params=SIZES, ids=str)
def sizes(request, monkeypatch):
    monkeypatch.setattr(module, "SLICE", request.param)


@pytest.fixture(autouse=True)
def small_tensors_are_large(monkeypatch):
    monkeypatch.setattr(module, "WHOLE", 3)


@pytest.fixture(params=["differentiated once", "many products"])
def recording(request):
    """A step that is recorded for one backward pass, and one for a series."""
    with many_products() if request.param == "many products" else nullcontext():
        yield


def tensor(*shape, layout=torch.contiguous_format, seed=0):
    x = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return (x.contiguous(memory_format=layout) if len(shape) == 4 else x).requires_grad_()


def chain(h, spatial, drive, gain):
    """Of a state, of what is the same for all channels, of a drive and of a parameter."""
    return torch.tanh(drive - (gain * h).exp() * spatial.sin()) + gain * drive


def arguments(layout=torch.contiguous_format):
    changing = tensor(*SHAPE, layout=layout), tensor(2, 1, 4, 2, seed=1)
    return changing, (tensor(*SHAPE, layout=layout, seed=2), tensor(3, 1, 1, seed=3))


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.usefixtures("sizes", "recording")
def test_values_and_derivatives(layout):
    changing, fixed = arguments(layout)
    value = elementwise(chain, changing, fixed)
    torch.testing.assert_close(value, chain(*changing, *fixed), rtol=1e-14, atol=1e-14)
    assert value.stride() == changing[0].stride()

    def call(*tensors):
        return elementwise(chain, tensors[:2], tensors[2:])

    assert gradcheck(call, (*changing, *fixed)) and gradgradcheck(call, (*changing, *fixed))


@pytest.mark.usefixtures("sizes", "recording")
def test_the_third_derivative():
    def third(function):
        x, gain = tensor(*SHAPE), tensor(3, 1, 1, seed=3)
        first = grad(function(x, gain).square().sum(), (x, gain), create_graph=True)
        second = grad(sum(part.sin().sum() for part in first), (x, gain), create_graph=True)
        return grad(sum(part.square().sum() for part in second), (x, gain))

    found = third(lambda x, gain: elementwise(chain, (x, x), (x, gain)))
    truth = third(lambda x, gain: chain(x, x, x, gain))
    torch.testing.assert_close(found, truth, rtol=1e-10, atol=1e-10)


def counted():
    """The chain, and a list that grows by its calls."""
    calls = []

    def call(*tensors):
        calls.append(len(tensors))
        return chain(*tensors)

    return call, calls


def test_small_tensors_are_left_to_autograd(monkeypatch):
    monkeypatch.setattr(module, "WHOLE", 48)
    function, calls = counted()
    changing, fixed = arguments()
    inputs = (*changing, *fixed)
    found = grad(elementwise(function, changing, fixed).sum(), inputs)
    torch.testing.assert_close(found, grad(chain(*inputs).sum(), inputs), rtol=0, atol=0)
    assert len(calls) == 1  # nothing is computed again for the gradients


def test_a_series_evaluates_the_function_once():
    function, calls = counted()
    changing, fixed = arguments()
    with many_products():
        value = elementwise(function, changing, fixed)
    expected = chain(*changing, *fixed)
    assert len(calls) == 1
    for seed in range(3):
        g = tensor(*SHAPE, seed=seed).detach()
        found = grad(value, changing, g, retain_graph=True)
        torch.testing.assert_close(found, grad(expected, changing, g, retain_graph=True))
        assert len(calls) == 2  # the partial derivatives, with the first term
    grad(value, fixed, g)
    assert len(calls) == 3


def test_back_propagation_evaluates_the_function_once_for_all_gradients():
    function, calls = counted()
    changing, fixed = arguments()
    inputs = (*changing, *fixed)
    value = elementwise(function, changing, fixed)
    found = grad(value.sin().sum(), inputs)
    torch.testing.assert_close(found, grad(chain(*inputs).sin().sum(), inputs))
    assert len(calls) == 2


@pytest.mark.usefixtures("recording")
def test_what_needs_no_gradient_has_none():
    changing, (drive, gain) = arguments()
    value = elementwise(chain, changing, (drive.detach(), gain))
    value.sum().backward()
    truth = grad(chain(*changing, drive, gain).sum(), gain)[0]
    torch.testing.assert_close(gain.grad, truth)
    with torch.no_grad():
        assert not elementwise(chain, changing, (drive, gain)).requires_grad
    assert not elementwise(chain, *((*(t.detach() for t in group),) for group in arguments())).requires_grad


@pytest.mark.usefixtures("recording")
def test_an_output_may_be_written_to_and_a_changed_input_is_noticed():
    changing, fixed = arguments()
    value = elementwise(chain, changing, fixed)
    value.mul_(2)
    truth = grad(2 * chain(*changing, *fixed).sum(), changing)
    torch.testing.assert_close(grad(value.sum(), changing, retain_graph=True), truth)
    with torch.no_grad():
        fixed[1].add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        grad(value.sum(), changing)


@pytest.mark.usefixtures("sizes", "recording")
def test_transforms_of_torch():
    changing, fixed = arguments()
    tensors = tuple(t.detach() for t in (*changing, *fixed))

    def call(*tensors):
        return elementwise(chain, tensors[:2], tensors[2:])

    for ours, truth in zip(
        torch.func.jacrev(call, (0, 3))(*tensors), torch.func.jacrev(chain, (0, 3))(*tensors), strict=True
    ):
        torch.testing.assert_close(ours, truth)
    for ours, truth in zip(
        torch.func.jvp(call, tensors, tensors), torch.func.jvp(chain, tensors, tensors), strict=True
    ):
        torch.testing.assert_close(ours, truth)
    g = torch.stack([tensor(*SHAPE, seed=seed).detach() for seed in range(3)])
    inputs = (*changing, *fixed)
    for create_graph in (False, True):
        ours, truth = (
            grad(function(*inputs), inputs, g, is_grads_batched=True, create_graph=create_graph)
            for function in (call, chain)
        )
        torch.testing.assert_close(ours, truth)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_precisions(dtype):
    tensors = [t.detach().to(dtype) for group in arguments() for t in group]
    value = elementwise(chain, tuple(tensors[:2]), tuple(tensors[2:]))
    assert value.dtype == dtype
    torch.testing.assert_close(value, chain(*tensors))
    mixed = elementwise(chain, (tensors[0], tensors[1].double()), tuple(tensors[2:]))
    assert mixed.dtype == torch.float64
