"""The hGRU of Pathfinder against its equations, in both forms."""

import numpy as np
import pytest
import torch
from helpers.formulas import batch_norm, convolve, parameters_of, sigmoid, softplus

from crbp_d2.cells import HGRUCell


def reference_step(p, form, z, h):
    g = sigmoid(convolve(h, p["input_gate.weight"], p["input_gate.bias"]))
    c_s = batch_norm(convolve(h * g, p["inhibition.weight"]), p["inhibition_norm.weight"], p["inhibition_norm.bias"])
    s = softplus(z - softplus((p["alpha"] * h + p["mu"]) * c_s))
    g_f = sigmoid(convolve(s, p["update_gate.weight"], p["update_gate.bias"]))
    c_f = batch_norm(convolve(s, p["excitation.weight"]), p["excitation_norm.weight"], p["excitation_norm.bias"])
    if form == "printed":
        candidate = softplus(p["nu"] * (c_f + s) + p["omega"] * (c_f * s))
        return (1 - g_f) * h + g_f * candidate
    candidate = softplus(p["kappa"] * s + p["gamma"] * c_f + p["omega"] * (c_f * s))
    return softplus((1 - g_f) * h + g_f * candidate)


@pytest.mark.parametrize("form", ["printed", "released"])
@pytest.mark.parametrize("channels,kernel_size", [(8, 3), (25, 15)])
def test_one_step_equals_the_written_equations(form, channels, kernel_size):
    torch.manual_seed(0)
    cell = HGRUCell(channels, kernel_size, norm="BN", form=form).double()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    drive, h = torch.randn(2, channels, 9, 10).double(), torch.rand(2, channels, 9, 10).double()
    truth = reference_step(parameters_of(cell), form, drive.numpy(), h.numpy())
    np.testing.assert_allclose(cell(drive, (h,))[0].detach().numpy(), truth, rtol=0, atol=1e-11)


def test_initial_values():
    torch.manual_seed(0)
    cell = HGRUCell(25, 15)
    assert [(getattr(cell, gain) == value).all() for gain, value in
            (("alpha", 0.1), ("mu", 1.0), ("nu", 0.5), ("omega", 0.5))] == [True] * 4  # fmt: skip
    assert (cell.inhibition_norm.weight == 0.1).all() and (cell.excitation_norm.weight == 0.1).all()
    for conv in (cell.inhibition, cell.excitation, cell.input_gate, cell.update_gate):
        rows = conv.weight.flatten(1)
        torch.testing.assert_close(rows @ rows.T, torch.eye(25), rtol=0, atol=1e-5)
    assert cell.inhibition.bias is None and cell.excitation.bias is None
    released = HGRUCell(25, 15, form="released")
    assert (released.kappa == 0.5).all() and (released.gamma == 1).all()
    assert not hasattr(released, "nu") and not hasattr(cell, "kappa")


def test_chrono_biases_are_logarithms_of_opposite_sign():
    torch.manual_seed(0)
    cell = HGRUCell(1024, 1, timescale=8)
    bias = cell.input_gate.bias.detach()
    assert torch.equal(cell.update_gate.bias.detach(), -bias)
    # Quantiles of uniform(1, 7).
    quantiles = torch.quantile(bias.exp(), torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]))
    torch.testing.assert_close(quantiles, torch.tensor([1.0, 2.5, 4.0, 5.5, 7.0]), rtol=0, atol=0.4)
