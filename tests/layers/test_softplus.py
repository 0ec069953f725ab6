"""Softplus against its definition in float64."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import crbp_d2.layers.fused as module
from crbp_d2.layers.fused import softplus


@pytest.mark.parametrize("dtype,tolerance", [(torch.float64, 1e-15), (torch.float32, 5e-7), (torch.bfloat16, 4e-3)])
def test_values_are_relatively_exact_everywhere(dtype, tolerance):
    x = torch.cat([torch.linspace(-80, 80, 20001), torch.linspace(-1e-3, 1e-3, 101)]).to(dtype)
    # For large negative x, log(1 + t) is t to float64's last digit.
    t = x.double().neg().abs().neg().exp()
    truth = x.double().clamp(min=0) + torch.where(t < 1e-8, t - t * t / 2, torch.log1p(t))
    y = softplus(x)
    assert y.dtype == dtype
    assert ((y.double() - truth) / truth).abs().max() < tolerance


def test_the_coefficients_interpolate_the_series():
    """The series 2 atanh(z) / z in z^2, from 0 to 1/9 at Chebyshev's points, within float32's rounding."""
    nodes = (1 + np.cos(np.pi * (np.arange(5) + 0.5) / 5)) / 18
    roots = np.sqrt(nodes)
    truth = np.polynomial.polynomial.polyfit(nodes, 2 * np.arctanh(roots) / roots, 4)
    np.testing.assert_allclose(module.ATANH, truth, rtol=1e-7)
    z = np.linspace(1e-3, 1 / 3, 999)
    error = np.polynomial.polynomial.polyval(z**2, module.ATANH) * z / (2 * np.arctanh(z)) - 1
    assert np.abs(error).max() < 1e-8


def test_infinite_values_and_nan():
    y = softplus(torch.tensor([float("inf"), -float("inf"), float("nan"), -1e5, 1e5]))
    assert y[:2].tolist() == [float("inf"), 0] and y[2].isnan() and y[3:].tolist() == [0, 1e5]


def test_derivatives():
    x = (3 * torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))).requires_grad_()
    assert torch.autograd.gradcheck(softplus, x) and torch.autograd.gradgradcheck(softplus, x)
    (ours,), (truth,) = (torch.autograd.grad(f(x).sin().sum(), x) for f in (softplus, F.softplus))
    torch.testing.assert_close(ours, truth, rtol=1e-12, atol=1e-12)


def test_an_output_may_be_written_to():
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    y = softplus(x)
    y.mul_(2)
    y.sum().backward()
    torch.testing.assert_close(x.grad, 2 * torch.sigmoid(x))


def test_what_is_traced_is_torchs_own(monkeypatch):
    monkeypatch.setattr(module, "_softplus", lambda x: pytest.fail("torch's own is asked for"))
    x = torch.randn(3, 4)
    value, tangent = torch.func.jvp(softplus, (x,), (torch.ones_like(x),))
    torch.testing.assert_close((value, tangent), (F.softplus(x), torch.sigmoid(x)))
    exported = torch.export.export(Layer(), (x,))
    assert "softplus" in str(exported.graph)


class Layer(torch.nn.Module):
    def forward(self, x):
        return softplus(x)
