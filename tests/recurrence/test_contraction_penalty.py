"""The contraction penalty against dense Jacobians and power iteration in numpy."""

import numpy as np
import pytest
import torch
from helpers.problems import LinearCell, dense_jacobian, flat, gradients, iterate

from crbp_d2.recurrence import (
    PENALTIES,
    ContractionPenalty,
    FixedSteps,
    Implicit,
    NeumannSeries,
    Recurrence,
    learning_rule,
)

EXACT = {"rtol": 1e-9, "atol": 1e-12}


def last_vector(jacobian, start, iterations):
    """v of each sample after power iteration with v J, of unit length."""
    v = start / np.linalg.norm(start, axis=1, keepdims=True)
    for _ in range(iterations):
        v = np.einsum("ni,nij->nj", v, jacobian)
        v /= np.linalg.norm(v, axis=1, keepdims=True)
    return v


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("iterations", [0, 3])
def test_value_and_gradient_equal_the_dense_formula(problem, reduction, iterations):
    cell, drive = problem
    bound = 0.2
    rule = {"penalty": "Contraction", "power_iterations": iterations, "bound": bound, "reduction": reduction}
    torch.manual_seed(3)
    output = learning_rule("crbp", cell, steps=4, **rule)(drive)
    at = iterate(cell, drive, 3)
    torch.manual_seed(3)
    start = flat(tuple(torch.randn_like(part) for part in at))
    dense = dense_jacobian(cell, drive, at, create_graph=True)
    v = torch.from_numpy(last_vector(dense.detach().numpy(), start.numpy(), iterations))
    growth = torch.einsum("ni,nij->nj", v, dense).norm(dim=1)
    excess = torch.relu(growth - bound) ** 2
    assert (excess > 1e-3).all()
    truth = excess.mean() if reduction == "mean" else excess.sum()
    torch.testing.assert_close(output.penalty, truth, **EXACT)
    for ours, expected in zip(gradients(cell, drive, output.penalty), gradients(cell, drive, truth), strict=True):
        assert expected.abs().max() > 1e-3
        torch.testing.assert_close(ours, expected, **EXACT)


def test_power_iteration_finds_the_spectral_radius():
    rotation, _ = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    matrix = rotation @ torch.diag(torch.tensor([0.95, -0.5, 0.4, 0.3, -0.2, 0.1], dtype=torch.float64)) @ rotation.T
    cell, drive = LinearCell(matrix), torch.randn(4, 6, dtype=torch.float64)

    def value(iterations):
        penalty = ContractionPenalty(0.0, "mean", iterations)
        return Recurrence(cell, FixedSteps(2), Implicit(NeumannSeries(3)), penalty)(drive).penalty.item()

    assert value(30) == pytest.approx(0.95**2, rel=1e-6)
    assert value(0) < 0.8 * 0.95**2


def test_what_contracts_enough_costs_nothing(problem):
    cell, drive = problem
    output = learning_rule("crbp", cell, steps=4, penalty="Contraction", bound=0.9)(drive)
    assert output.penalty.item() == 0 and output.penalty.requires_grad


def test_a_state_that_the_step_does_not_read_has_no_growth():
    cell = LinearCell(torch.zeros(3, 3, dtype=torch.float64))
    recurrence = Recurrence(cell, FixedSteps(2), Implicit(NeumannSeries(3)), ContractionPenalty(0.0))
    output = recurrence(torch.ones(2, 3, dtype=torch.float64))
    output.penalty.backward()
    assert output.penalty.item() == 0 and cell.weight.grad.isfinite().all()


@pytest.mark.parametrize(
    "arguments,message",
    [
        ({"bound": 1.0}, r"ContractionPenalty: bound is 1.0.*\[0, 1\)"),
        ({"reduction": "max"}, "ContractionPenalty: reduction is 'max'; allowed: mean, sum"),
        ({"iterations": -1}, "ContractionPenalty: iterations is -1.*whole numbers from 0"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        ContractionPenalty(**arguments)
    with pytest.raises(ValueError, match="penalty"):
        PENALTIES["other"]
