"""A convolution by any method: parametrized, with an output that is written to, called in threads."""

import copy
import threading
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from crbp_d2.layers.convolution import METHODS, HorizontalConv2d


class Dropped(nn.Module):
    """Another half of the values at every look."""

    def __init__(self):
        super().__init__()
        self.looks = 0

    def forward(self, value):
        self.looks += 1
        return value * (torch.rand_like(value) > 0.5)


def layer(method, channels=3):
    torch.manual_seed(0)
    return HorizontalConv2d(channels, channels, 5, bias=True, method=method).double()


def image(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("name", ["weight", "bias"])
@pytest.mark.parametrize("method", METHODS)
def test_a_random_parametrization_is_drawn_once_a_call(method, name):
    conv = layer(method)
    conv.bias.data.zero_() if name == "weight" else conv.weight.data.zero_()
    dropped = Dropped()
    parametrize.register_parametrization(conv, name, dropped)
    dropped.looks = 0
    original = conv.parametrizations[name].original
    y = conv(image(1, 3, 6, 6))
    (gradient,) = torch.autograd.grad(y.square().sum() / 2, original)
    assert dropped.looks == 1
    # y is linear in the original for its draw: <gradient, original> is ||y||^2 if both belong to one draw.
    torch.testing.assert_close((gradient * original).sum(), y.square().sum(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize("method", METHODS)
def test_an_output_may_be_written_to(method, kernel_size, bias):
    conv = HorizontalConv2d(3, 4, kernel_size, bias=bias, method=method).double()
    plain = copy.deepcopy(conv)
    plain.set_method("direct")
    x = image(2, 3, 8, 8).requires_grad_()

    def derivatives(module):
        y = module(x)
        y.add_(1)
        y[:, 0] *= 2
        torch.relu_(y)
        first = torch.autograd.grad(y.square().sum(), (x, module.weight), create_graph=True)
        return *first, *torch.autograd.grad(sum(part.square().sum() for part in first), (x, module.weight))

    for ours, truth in zip(derivatives(conv), derivatives(plain), strict=True):
        torch.testing.assert_close(ours, truth, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("changed", ["x", "weight"])
def test_an_input_written_to_before_the_backward_pass_is_noticed(method, changed):
    conv = layer(method)
    x = image(2, 3, 8, 8).requires_grad_()
    used = x * 1
    y = conv(used)
    with torch.no_grad():
        (used if changed == "x" else conv.weight).mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def in_threads(*calls):
    results = [None] * len(calls)

    def run(k):
        results[k] = calls[k]()

    threads = [threading.Thread(target=run, args=(k,)) for k in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_threads_share_a_layer_and_a_graph():
    conv = layer("fft", channels=16)
    images = [image(4, 16, 24, 24, seed=k).requires_grad_() for k in range(4)]
    y = conv(images[0])
    weights = [image(*y.shape, seed=10 + k) for k in range(4)]

    def forward(k):
        return conv(images[k]).detach()

    def backward(k):
        return torch.autograd.grad(y, (images[0], conv.weight), weights[k], retain_graph=True)

    for work in (forward, backward):
        single = [work(k) for k in range(4)]
        for _ in range(3):
            together = in_threads(*(partial(work, k) for k in range(4)))
            for ours, truth in zip(together, single, strict=True):
                for a, b in zip(ours, truth, strict=True):
                    assert torch.equal(a, b)


def test_threads_with_weights_of_their_own():
    """Replicas of DataParallel and copies: the spectra of one are not the other's."""
    conv = layer("fft")
    other = copy.deepcopy(conv)
    replica = conv._replicate_for_data_parallel()
    replica.weight, replica.bias = -conv.weight.detach(), -conv.bias.detach()
    other.weight.data.mul_(3)
    other.bias.data.mul_(3)
    x = image(2, 3, 9, 9)
    truth = conv(x)

    def repeat(module):
        return [module(x) for _ in range(20)]

    found = in_threads(*(partial(repeat, module) for module in (conv, other, replica)))
    for scale, outputs in zip((1, 3, -1), found, strict=True):
        for y in outputs:
            torch.testing.assert_close(y, scale * truth, rtol=0, atol=1e-12)
