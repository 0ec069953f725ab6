"""Gradients of the learning rules against dense solves and plain autograd, in float64."""

import pytest
import torch
from helpers.problems import (
    LinearCell,
    dense_jacobian,
    drive_for,
    flat,
    gradients,
    iterate,
    loss_of,
    push,
)

from crbp_d2.cells import HGRUCell
from crbp_d2.recurrence import (
    learning_rule,
)

EXACT = {"rtol": 0, "atol": 1e-9}


def loss_gradient(state):
    """dL/dh as N x D."""
    leaf = tuple(part.detach().requires_grad_() for part in state)
    return flat(torch.autograd.grad(loss_of(leaf), leaf))


@pytest.mark.parametrize("num_terms", [0, 1, 4, 15])
def test_series_is_the_exact_partial_sum(problem, num_terms):
    cell, drive = problem
    output = learning_rule("rbp", cell, steps=4, num_terms=num_terms)(drive)
    at = iterate(cell, drive, 3)
    jacobian = dense_jacobian(cell, drive, at)
    g = loss_gradient(cell(drive, at))
    u = sum(torch.einsum("ni,nij->nj", g, torch.linalg.matrix_power(jacobian, k)) for k in range(num_terms + 1))
    for ours, truth in zip(gradients(cell, drive, loss_of(output.state)), push(cell, drive, at, u), strict=True):
        torch.testing.assert_close(ours, truth, **EXACT)
    assert output.stats.transpose.sample_steps.tolist() == [num_terms] * len(drive)


def test_series_of_samples_coupled_by_batch_norm():
    torch.manual_seed(0)
    cell = HGRUCell(2, 3, norm="BN").double()
    drive = torch.randn(3, 2, 5, 5, dtype=torch.float64)
    # Gradients of different sizes, none so small that its sample's series would be cut as growing.
    weights = torch.tensor([1.0, 0.4, 2.2], dtype=torch.float64).view(3, 1, 1, 1)

    def loss_of_samples(state):
        return (weights * state[0].sin()).sum()

    (h,) = iterate(cell, drive, 3)
    h.requires_grad_()
    new = cell(drive, (h,))
    u = term = torch.autograd.grad(loss_of_samples(new), new, retain_graph=True)[0]
    for _ in range(4):
        (term,) = torch.autograd.grad(new[0], h, term, retain_graph=True)
        u = u + term
    truth = torch.autograd.grad(new, [*cell.parameters()], u)
    state = learning_rule("rbp", cell, steps=4, num_terms=4)(drive).state
    ours = torch.autograd.grad(loss_of_samples(state), [*cell.parameters()])
    for found, right in zip(ours, truth, strict=True):
        torch.testing.assert_close(found, right, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("steps", [1, 5])
def test_penalty_value_and_gradient_equal_the_dense_formula(problem, reduction, steps):
    cell, drive = problem
    with torch.no_grad():
        cell.weight.mul_(2.5)
    bound = 0.1
    output = learning_rule("crbp", cell, steps=steps, bound=bound, reduction=reduction)(drive)
    at = iterate(cell, drive, steps - 1)
    columns = dense_jacobian(cell, drive, at, create_graph=True).sum(dim=1)
    excess = torch.relu(columns - bound) ** 2
    assert 0 < (excess > 0).sum() < excess.numel(), "the problem must have entries on both sides of the bound"
    truth = excess.mean() if reduction == "mean" else excess.sum()
    torch.testing.assert_close(output.penalty, truth, **EXACT)
    for ours, dense in zip(gradients(cell, drive, output.penalty), gradients(cell, drive, truth), strict=True):
        assert dense.abs().max() > 1e-3
        torch.testing.assert_close(ours, dense, **EXACT)


def test_cbptt_penalty_is_differentiated_through_all_steps(problem):
    cell, drive = problem
    with torch.no_grad():
        cell.weight.mul_(2.5)
    recurrence = learning_rule("cbptt", cell, steps=3, bound=0.1)
    (gradient,) = torch.autograd.grad(recurrence(drive).penalty, cell.weight)
    direction = torch.randn_like(cell.weight)
    eps = 1e-6

    def at(shift):
        with torch.no_grad():
            cell.weight.add_(direction, alpha=shift)
        value = recurrence(drive).penalty.item()
        with torch.no_grad():
            cell.weight.sub_(direction, alpha=shift)
        return value

    assert (gradient * direction).sum().item() == pytest.approx((at(eps) - at(-eps)) / (2 * eps), rel=1e-6)


@pytest.mark.parametrize("scale", [2.0**16, 2.0**-30, 1e12])
@pytest.mark.parametrize("rate", [0.9, 4.0], ids=["contraction", "growing"])
def test_loss_scale_only_scales_the_gradient(scale, rate):
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    cell = LinearCell(rate * matrix / torch.linalg.eigvals(matrix).abs().max())
    drive = drive_for(cell).requires_grad_()
    recurrence = learning_rule("rbp", cell, steps=3, num_terms=15)
    plain = gradients(cell, drive, loss_of(recurrence(drive).state))
    scaled = gradients(cell, drive, scale * loss_of(recurrence(drive).state))
    for a, b in zip(plain, scaled, strict=True):
        assert a.abs().max() > 0
        torch.testing.assert_close(a, b / scale, rtol=1e-12, atol=0)


def test_backward_of_several_outputs_and_twice(problem):
    cell, drive = problem
    output = learning_rule("crbp", cell, steps=20)(drive)
    first = torch.autograd.grad(loss_of(output.state) + output.penalty, cell.weight, retain_graph=True)[0]
    second = torch.autograd.grad(loss_of(output.state) + output.penalty, cell.weight)[0]
    assert torch.equal(first, second)
