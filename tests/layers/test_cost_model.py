"""The choice of a method for known shapes."""

import dataclasses

import pytest
import torch

from crbp_d2.layers.cost_model import TABLE, Problem, choose_method, predicted_seconds, supports
from crbp_d2.layers.tensors import WIDE, preferred_layout

PATHFINDER = Problem(16, 25, 25, 150, 150, 15)
SMALL_PATHFINDER = Problem(16, 8, 8, 48, 48, 7)
MASK_CELL = Problem(64, 256, 256, 14, 14, 3)


@pytest.mark.parametrize(
    "problem,method",
    [
        (PATHFINDER, "fft"),
        (dataclasses.replace(PATHFINDER, batch=1), "fft"),
        (dataclasses.replace(PATHFINDER, kernel_size=3), "direct"),
        (SMALL_PATHFINDER, "fft"),
        (dataclasses.replace(SMALL_PATHFINDER, kernel_size=3), "direct"),
        (MASK_CELL, "direct"),
        (Problem(8, 32, 32, 10, 10, 1), "direct"),
    ],
)
def test_methods_of_the_shipped_configs(problem, method):
    assert choose_method(problem, torch.float32, "cpu") == method


def test_the_layout_is_a_function_of_channels_and_device():
    assert preferred_layout(256, "cpu") == preferred_layout(WIDE, "cpu") == torch.channels_last
    assert preferred_layout(WIDE - 1, "cpu") == preferred_layout(256, "cuda") == torch.contiguous_format


def test_without_a_measured_table_the_method_is_direct():
    for dtype, device in ((torch.float32, "mps"), (torch.float32, "cuda"), (torch.complex64, "cpu")):
        assert predicted_seconds(PATHFINDER, dtype, device) == {}
        assert choose_method(PATHFINDER, dtype, device) == "direct"


def test_a_spectrum_out_of_proportion_is_not_chosen():
    huge = Problem(8, 256, 256, 150, 150, 15)
    assert not supports("fft", huge) and "fft" not in predicted_seconds(huge, torch.float32, "cpu")
    assert choose_method(huge, torch.float32, "cpu") == "direct"


@pytest.mark.parametrize("key", TABLE)
def test_more_work_is_predicted_to_take_longer(key):
    device, dtype = key
    for problem in (PATHFINDER, MASK_CELL):
        less = predicted_seconds(problem, dtype, device)
        for field in ("batch", "in_channels", "out_channels", "height", "width"):
            more = predicted_seconds(
                dataclasses.replace(problem, **{field: 2 * getattr(problem, field)}), dtype, device
            )
            assert all(more[method] > seconds for method, seconds in less.items() if method in more)
