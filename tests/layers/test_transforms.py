"""Transforms that are kept: computed once for a weight that stays, and right for one that changes, however it does."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from crbp_d2.layers import fourier, winograd
from crbp_d2.layers.cache import solve_scope
from crbp_d2.layers.convolution import HorizontalConv2d

METHODS = [("fft", 5), ("winograd", 3)]


@pytest.fixture(params=METHODS, ids=lambda case: case[0])
def conv(request):
    method, kernel_size = request.param
    torch.manual_seed(0)
    return HorizontalConv2d(3, 4, kernel_size, method=method).double()


@pytest.fixture
def computed(monkeypatch):
    """One entry for each time that a weight is transformed."""
    calls = []
    for module in (fourier, winograd):
        plain = module._transform_kernel

        def counted(*args, plain=plain):
            calls.append(plain)
            return plain(*args)

        monkeypatch.setattr(module, "_transform_kernel", counted)
    return calls


def image(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def check(conv, x, weight=None):
    weight = conv.weight if weight is None else weight
    truth = F.conv2d(x, weight, padding=weight.shape[-1] // 2)
    torch.testing.assert_close(conv(x), truth, rtol=0, atol=1e-12)


def test_a_loop_of_ones_own_transforms_a_weight_once(conv, computed):
    x = image(2, 3, 9, 8)
    for _ in range(3):
        check(conv, x)
        with torch.no_grad():
            check(conv, x)
        with torch.inference_mode():
            check(conv, x)
    assert len(computed) == 1
    with solve_scope():
        check(conv, x)
    assert len(computed) == 1
    conv(x.requires_grad_()).sum().backward()
    conv(x).sum().backward()
    assert len(computed) == (2 if conv.method == "winograd" else 1)  # Its mirror image too.


def test_what_is_computed_in_inference_mode_serves_training(conv):
    x = image(2, 3, 9, 8)
    with torch.inference_mode():
        conv(x)
    plain = copy.deepcopy(conv)
    plain.set_method("direct")
    for module in (conv, plain):
        module(x).sin().sum().backward()
    torch.testing.assert_close(conv.weight.grad, plain.weight.grad, rtol=0, atol=1e-11)


def in_place(conv):
    with torch.no_grad():
        conv.weight.mul_(2)


def one_element_of_data(conv):
    conv.weight.data[0, 0, 0, 0] += 1


def data_in_place(conv):
    conv.weight.data.mul_(-1)


def other_data(conv):
    conv.weight.data = conv.weight.data + 1


def optimizer_step(conv):
    conv.weight.grad = torch.ones_like(conv.weight)
    torch.optim.SGD([conv.weight], lr=0.1, momentum=0.9).step()


def loaded(conv):
    conv.load_state_dict({"weight": conv.weight + 1})


def assigned(conv):
    conv.load_state_dict({"weight": nn.Parameter(conv.weight.detach() + 1)}, assign=True)


def another_parameter(conv):
    conv.weight = nn.Parameter(conv.weight.detach() * 3)


def numpy_view(conv):
    conv.weight.detach().numpy()[:] *= 2


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(
    "change",
    [in_place, one_element_of_data, data_in_place, other_data, optimizer_step, loaded, assigned, another_parameter,
     numpy_view],
    ids=lambda change: change.__name__,
)  # fmt: skip
def test_a_changed_weight_is_transformed_again(conv, change, shared):
    x = image(2, 3, 9, 8)
    for _ in range(2):
        with solve_scope() if shared else torch.enable_grad():
            check(conv, x)
        change(conv)
    check(conv, x)


def test_a_weight_that_is_written_to_within_a_solve(conv, computed):
    x = image(2, 3, 9, 8)
    with solve_scope(), torch.no_grad():
        check(conv, x)
        check(conv, x)
        assert len(computed) == 1
        conv.weight.mul_(2)
        check(conv, x)
    assert len(computed) == 2


def test_functional_call_with_other_weights(conv):
    x = image(2, 3, 9, 8)
    check(conv, x)
    weight = (2 * conv.weight.detach()).requires_grad_()
    y = functional_call(conv, {"weight": weight}, (x,))
    truth = F.conv2d(x, weight, padding=weight.shape[-1] // 2)
    torch.testing.assert_close(y, truth, rtol=0, atol=1e-12)
    found, expected = (torch.autograd.grad(value.sin().sum(), weight)[0] for value in (y, truth))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)
    check(conv, x)


def test_other_precisions_and_back(conv):
    x = image(2, 3, 9, 8)
    check(conv, x)
    single = conv.float()(x.float())
    assert single.dtype == torch.float32
    truth = F.conv2d(x, conv.weight.double(), padding=conv.padding[0])
    torch.testing.assert_close(single.double(), truth, rtol=0, atol=1e-5)
    check(conv.double(), x)


def test_image_sizes_that_take_turns(computed):
    conv = HorizontalConv2d(3, 4, 5, method="fft").double()
    for _ in range(3):
        for width in (8, 16):
            check(conv, image(2, 3, 9, width))
    assert len(computed) == 2
    check(conv, image(2, 3, 9, 30))
    assert len(conv._transforms._kept) == 2


def test_spectral_norm_in_evaluation_is_transformed_once(conv, computed):
    x = image(2, 3, 9, 8)
    conv = parametrizations.spectral_norm(conv)
    conv.eval()
    for _ in range(3):
        check(conv, x)
    assert len(computed) == 1


def test_copies_and_files_hold_no_transforms(conv):
    x = image(2, 3, 9, 8)
    y = conv(x)
    file = io.BytesIO()
    torch.save(conv, file)
    file.seek(0)
    for other in (copy.deepcopy(conv), copy.copy(conv), pickle.loads(pickle.dumps(conv)),
                  torch.load(file, weights_only=False)):  # fmt: skip
        assert torch.equal(other(x), y)
    assert not copy.deepcopy(conv)._transforms._kept
    assert list(conv.state_dict()) == ["weight"]
    assert len(pickle.dumps(conv)) < len(pickle.dumps(HorizontalConv2d(3, 4, conv.kernel_size[0]).double())) + 200
    other = copy.deepcopy(conv)
    in_place(other)
    check(other, x)
    check(conv, x)
