"""The GALA hGRU against its equations, written out again with plain tensor operations."""

import numpy as np
import pytest
import torch
from helpers.formulas import convolve, group_norm, parameters_of, sigmoid, softplus

from crbp_d2.cells import GalaHGRUCell


def reference_step(p, groups, z, h):
    channel = convolve(softplus(convolve(h, p["channel_gate_1.weight"], p["channel_gate_1.bias"])),
                       p["channel_gate_2.weight"])  # fmt: skip
    spatial = convolve(softplus(convolve(h, p["spatial_gate_1.weight"], p["spatial_gate_1.bias"])),
                       p["spatial_gate_2.weight"])  # fmt: skip
    gate = sigmoid(channel * spatial + p["gate_bias"])
    c_s = group_norm(convolve(h * gate, p["inhibition.weight"]), groups,
                     p["inhibition_norm.weight"], p["inhibition_norm.bias"])  # fmt: skip
    s = softplus(z - c_s * (p["alpha"] * h + p["mu"]))
    g_f = sigmoid(convolve(s, p["update_gate.weight"], p["update_gate.bias"]))
    c_f = group_norm(convolve(s, p["excitation.weight"]), groups,
                     p["excitation_norm.weight"], p["excitation_norm.bias"])  # fmt: skip
    return (1 - g_f) * h + g_f * softplus(c_f)


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize("channels", [8, 64])
def test_one_step_equals_the_written_equations(channels, kernel_size):
    torch.manual_seed(0)
    cell = GalaHGRUCell(channels, kernel_size).double()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    drive, h = torch.randn(2, channels, 6, 7).double(), torch.rand(2, channels, 6, 7).double()
    p = parameters_of(cell)
    truth = reference_step(p, min(32, channels), drive.numpy(), h.numpy())
    np.testing.assert_allclose(cell(drive, (h,))[0].detach().numpy(), truth, rtol=0, atol=1e-12)


def test_parameters_are_those_of_the_paper():
    shapes = {name: tuple(p.shape) for name, p in GalaHGRUCell(256).named_parameters()}
    assert sum(np.prod(shape) for shape in shapes.values()) == 1_576_256
    assert shapes["spatial_gate_1.weight"] == (128, 256, 3, 3)
    assert shapes["spatial_gate_2.weight"] == (1, 128, 3, 3)
    assert shapes["channel_gate_1.weight"] == (64, 256, 1, 1)
    assert "inhibition.bias" not in shapes
    assert "channel_gate_2.bias" not in shapes


def test_chrono_biases_are_logarithms_of_opposite_sign():
    torch.manual_seed(0)
    cell = GalaHGRUCell(1024, timescale=20)
    bias = cell.gate_bias.detach().flatten()
    assert torch.equal(cell.update_gate.bias.detach(), -bias)
    steps = bias.exp()
    assert steps.min() >= 1 and steps.max() <= 19
    # Quantiles of uniform(1, 19); without the logarithm exp(bias) would reach e^19.
    quantiles = torch.quantile(steps, torch.tensor([0.25, 0.5, 0.75]))
    torch.testing.assert_close(quantiles, torch.tensor([5.5, 10.0, 14.5]), rtol=0, atol=1.0)


def test_initial_values():
    torch.manual_seed(0)
    cell = GalaHGRUCell(256)
    assert (cell.alpha == 0.1).all() and (cell.mu == 1).all()
    assert (cell.inhibition_norm.weight == 0.1).all() and (cell.excitation_norm.weight == 0.1).all()
    assert not cell.spatial_gate_1.bias.any() and not cell.channel_gate_1.bias.any()
    # Kaiming normal: variance 2 / fan-in.
    for conv in (cell.inhibition, cell.excitation, cell.spatial_gate_1, cell.update_gate):
        fan_in = conv.weight[0].numel()
        assert conv.weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.02)
    drive = torch.randn(2, 256, 3, 3)
    assert not cell.initial_state(drive)[0].any() and cell.initial_state(drive)[0].shape == drive.shape


@pytest.mark.parametrize("timescale", [1, 2])
def test_short_timescales_start_with_open_gates(timescale):
    assert not GalaHGRUCell(8, timescale=timescale).gate_bias.any()
