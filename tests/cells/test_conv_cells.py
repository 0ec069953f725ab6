"""ConvLSTM and ConvGRU against their equations; the feedforward control."""

import numpy as np
import pytest
import torch
from helpers.formulas import batch_norm, convolve, parameters_of, sigmoid
from torch.nn import functional as F

from crbp_d2.cells import ConvGRUCell, ConvLSTMCell, FeedforwardControl


def lstm_step(p, norm, z, h, c):
    driven, recurrent = convolve(z, p["input.weight"], p["input.bias"]), convolve(h, p["recurrent.weight"])
    if norm == "BN":
        recurrent = batch_norm(recurrent, p["recurrent_norm.weight"], p["recurrent_norm.bias"])
    i, f, o, g = np.split(driven + recurrent, 4, axis=1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def gru_step(p, norm, z, h):
    def normed(x, name):
        return batch_norm(x, p[f"{name}_norm.weight"], p[f"{name}_norm.bias"]) if norm == "BN" else x

    z_r, z_u, z_g = np.split(convolve(z, p["input.weight"], p["input.bias"]), 3, axis=1)
    h_r, h_u = np.split(normed(convolve(h, p["gates.weight"]), "gates"), 2, axis=1)
    r, u = sigmoid(z_r + h_r), sigmoid(z_u + h_u)
    g = np.tanh(z_g + normed(convolve(r * h, p["candidate.weight"]), "candidate"))
    return ((1 - u) * h + u * g,)


@pytest.mark.parametrize("norm", ["none", "BN"])
@pytest.mark.parametrize("cls,reference,tensors", [(ConvLSTMCell, lstm_step, 2), (ConvGRUCell, gru_step, 1)])
def test_one_step_equals_the_written_equations(cls, reference, tensors, norm):
    torch.manual_seed(0)
    cell = cls(6, 5, norm=norm).double()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    drive = torch.randn(2, 6, 7, 8).double()
    state = tuple(torch.randn(2, 6, 7, 8).double() for _ in range(tensors))
    truth = reference(parameters_of(cell), norm, drive.numpy(), *(part.numpy() for part in state))
    for ours, expected in zip(cell(drive, state), truth, strict=True):
        np.testing.assert_allclose(ours.detach().numpy(), expected, rtol=0, atol=1e-12)
    assert len(cell.initial_state(drive)) == tensors


def test_lstm_starts_with_chrono_biases_of_forget_and_input_gate():
    torch.manual_seed(0)
    i, f, o, g = ConvLSTMCell(512, 1, timescale=20).input.bias.detach().chunk(4)
    assert torch.equal(i, -f) and not o.any() and not g.any()
    torch.testing.assert_close(f.exp().mean(), torch.tensor(10.0), rtol=0, atol=0.7)
    assert f.exp().min() >= 1 and f.exp().max() <= 19


def test_gru_starts_with_a_chrono_bias_of_the_update_gate():
    torch.manual_seed(0)
    reset, update, candidate = ConvGRUCell(512, 1, timescale=20).input.bias.detach().chunk(3)
    assert not reset.any() and not candidate.any()
    torch.testing.assert_close((-update).exp().mean(), torch.tensor(10.0), rtol=0, atol=0.7)


def test_weights_of_each_gate_start_orthogonal():
    torch.manual_seed(0)
    lstm, gru = ConvLSTMCell(5, 3), ConvGRUCell(5, 3)
    for conv in (lstm.input, lstm.recurrent, gru.input, gru.gates, gru.candidate):
        for weight in conv.weight.split(5):
            rows = weight.flatten(1)
            torch.testing.assert_close(rows @ rows.T, torch.eye(5), rtol=0, atol=1e-5)


def test_feedforward_control_is_convolutions_norms_and_relus():
    torch.manual_seed(0)
    network = FeedforwardControl(5, 3).double()
    drive = torch.randn(2, 5, 6, 7).double()
    x = drive
    for layer in range(6):
        x = F.conv2d(x, network[3 * layer].weight, padding=1)
        norm = network[3 * layer + 1]
        x = F.batch_norm(x, None, None, norm.weight, norm.bias, training=True, eps=1e-3).relu()
        assert (norm.weight == 1).all()
    torch.testing.assert_close(network(drive), x, rtol=0, atol=1e-12)
    assert sum(p.numel() for p in network.parameters()) == 6 * (5 * 5 * 9 + 2 * 5)
    with pytest.raises(ValueError, match="num_layers is 0"):
        FeedforwardControl(5, num_layers=0)
