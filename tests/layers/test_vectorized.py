"""Gradients of several vectors at once through every method, and what a layer takes."""

import numpy as np
import pytest
import torch
from torch.autograd.functional import hessian, jacobian

from crbp_d2.cells import CELLS, build_cell
from crbp_d2.layers.convolution import HorizontalConv2d
from crbp_d2.layers.norms import build_norm
from crbp_d2.utils.errors import SettingError

METHODS = [("auto", 7), ("fft", 5)]


def layers(method, kernel_size):
    torch.manual_seed(0)
    layer = HorizontalConv2d(2, 3, kernel_size, method=method).double()
    direct = HorizontalConv2d(2, 3, kernel_size, method="direct").double()
    direct.load_state_dict(layer.state_dict())
    return layer, direct


@pytest.mark.parametrize("method,kernel_size", METHODS)
def test_vectorized_derivatives_equal_the_direct_convolutions(method, kernel_size):
    x = torch.randn(1, 2, 6, 7, dtype=torch.float64)
    found = []
    for layer in layers(method, kernel_size):
        rows = torch.eye(3, dtype=torch.float64)
        weight = torch.autograd.grad(layer(x).mean(dim=(2, 3))[0], layer.weight, rows, is_grads_batched=True)[0]
        first = jacobian(lambda x, layer=layer: layer(x).sin().sum(dim=(0, 2, 3)), x, vectorize=True)
        second = hessian(lambda x, layer=layer: layer(x).sin().sum(), x, vectorize=True)
        found.append((weight, first, second))
    for a, b in zip(*found, strict=True):
        assert b.any()
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("value", [0, -1, 2.5, float("nan"), True, "3", None, torch.tensor(3)], ids=repr)
def test_sizes_of_a_layer_are_whole_numbers_and_its_kernel_odd(value):
    for place, name in enumerate(("in_channels", "out_channels", "kernel_size")):
        sizes = [3, 3, 3]
        sizes[place] = value
        with pytest.raises(SettingError, match=f"{name} is"):
            HorizontalConv2d(*sizes)
    with pytest.raises(SettingError, match="kernel_size is 4; allowed: odd"):
        HorizontalConv2d(3, 3, 4)
    with pytest.raises(SettingError, match="build_norm: channels is"):
        build_norm("GN", value)


@pytest.mark.parametrize("name", CELLS)
def test_numbers_of_numpy_size_a_cell(name):
    cell = build_cell(name, np.int64(4), kernel_size=np.int64(3), timescale=np.int64(8))
    drive = torch.randn(1, 4, 5, 5)
    assert cell(drive, cell.initial_state(drive))[0].shape == drive.shape
