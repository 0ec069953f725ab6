"""Diagnostics against closed forms and dense eigenvalues."""

import builtins

import pytest
import torch
from helpers.problems import PROBLEMS, LinearCell, TanhCell, dense_jacobian, drive_for, iterate

from crbp_d2.cells import GalaHGRUCell, HGRUCell
from crbp_d2.recurrence import contraction, learning_rule, lipschitz_coefficient, residuals, spectral_radius
from crbp_d2.recurrence.diagnostics import trajectory
from crbp_d2.utils.errors import SettingError


def complex_pair(size, radius=0.95, angle=1.1):
    """Leading eigenvalues radius * exp(+- i angle), the others in [0, 0.5], in a skew basis."""
    generator = torch.Generator().manual_seed(0)
    core = torch.diag(torch.linspace(0, 0.5, size, dtype=torch.float64))
    angle = torch.tensor(angle, dtype=torch.float64)
    core[:2, :2] = radius * torch.stack([torch.stack([angle.cos(), -angle.sin()]),
                                         torch.stack([angle.sin(), angle.cos()])])  # fmt: skip
    basis = torch.eye(size, dtype=torch.float64) + 0.3 * torch.randn(
        size, size, generator=generator, dtype=torch.float64
    ) / size**0.5  # fmt: skip
    return basis @ core @ torch.linalg.inv(basis)


@pytest.mark.parametrize("size", [6, 200])
def test_spectral_radius_of_a_complex_pair(size):
    cell = LinearCell(complex_pair(size))
    drive = drive_for(cell, samples=2)
    state = cell.initial_state(drive)
    found = spectral_radius(cell, drive, state)
    torch.testing.assert_close(found, torch.full((2,), 0.95, dtype=torch.float64), rtol=1e-6, atol=0)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_spectral_radius_per_sample_of_coupled_tensors(problem):
    cell = PROBLEMS[problem]()
    drive = drive_for(cell)
    state = iterate(cell, drive, 50)
    truth = torch.linalg.eigvals(dense_jacobian(cell, drive, state)).abs().max(dim=1).values
    assert truth.std() > 1e-3
    torch.testing.assert_close(spectral_radius(cell, drive, state), truth, rtol=1e-9, atol=0)


def test_spectral_radius_of_a_convolutional_cell_by_iteration():
    torch.manual_seed(0)
    cell = GalaHGRUCell(4, timescale=4).double()
    drive = torch.randn(2, 4, 6, 6).double()
    state = iterate(cell, drive, 30)
    truth = torch.linalg.eigvals(dense_jacobian(cell, drive, state)).abs().max(dim=1).values
    torch.testing.assert_close(spectral_radius(cell, drive, state, tol=1e-8), truth, rtol=1e-6, atol=0)


def test_spectral_radius_under_batch_norm_is_of_a_block():
    torch.manual_seed(0)
    cell = HGRUCell(2, 3, norm="BN", timescale=4).double()
    drive = torch.randn(2, 2, 3, 3).double()
    state = iterate(cell, drive, 10)
    whole = torch.autograd.functional.jacobian(
        lambda v: cell(drive, (v.view_as(drive),))[0].reshape(-1), state[0].reshape(-1)
    )
    size = whole.shape[0] // 2
    truth = torch.stack([torch.linalg.eigvals(whole[i : i + size, i : i + size]).abs().max() for i in (0, size)])
    torch.testing.assert_close(spectral_radius(cell, drive, state), truth, rtol=1e-9, atol=0)


def test_spectral_radius_of_nothing_and_of_a_broken_state():
    cell = LinearCell(torch.zeros(100, 100, dtype=torch.float64))
    drive = drive_for(cell, samples=1)
    assert spectral_radius(cell, drive, cell.initial_state(drive)).item() == 0
    broken = TanhCell()
    drive = drive_for(broken, samples=1)
    with pytest.raises(ValueError, match="Jacobian of sample 0 is not finite"):
        spectral_radius(broken, drive, (torch.full_like(drive, torch.nan),))


def test_spectral_radius_names_the_extra_it_needs(monkeypatch):
    real = builtins.__import__

    def without_scipy(name, *args, **kwargs):
        if name.startswith("scipy"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_scipy)
    cell = LinearCell(complex_pair(100))
    drive = drive_for(cell, samples=1)
    with pytest.raises(ImportError, match=r"pip install 'crbp_d2\[analysis\]'"):
        spectral_radius(cell, drive, cell.initial_state(drive))


def test_measures_of_a_linear_cell_are_geometric():
    cell = LinearCell(0.8 * torch.eye(3, dtype=torch.float64))
    drive = torch.ones(2, 3, dtype=torch.float64)
    t = torch.arange(1, 11, dtype=torch.float64)
    truth = 0.8 ** (t - 1) * 0.2 / (1 - 0.8**t)
    torch.testing.assert_close(residuals(cell, drive, 10), truth[:, None].expand(10, 2), rtol=1e-12, atol=0)
    rates = contraction(cell, drive, 10)
    torch.testing.assert_close(rates, torch.full((9, 2), 0.8, dtype=torch.float64), rtol=1e-12, atol=0)
    with pytest.raises(ValueError, match="contraction: steps is 1"):
        contraction(cell, drive, 1)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_lipschitz_coefficient_is_the_penalty_of_training(reduction):
    cell = TanhCell(rate=2.0)
    drive = drive_for(cell)
    output = learning_rule("crbp", cell, steps=5, bound=0.2, reduction=reduction)(drive)
    found = lipschitz_coefficient(cell, drive, iterate(cell, drive, 4), bound=0.2, reduction=reduction)
    assert found > 0 and found == pytest.approx(output.penalty.item(), rel=1e-12)


class WritingCell(LinearCell):
    """h' = h / 2 + z, written into h."""

    def forward(self, drive, state):
        return (state[0].mul_(0.5).add_(drive),)


def test_a_cell_that_writes_into_its_state_is_measured():
    cell = WritingCell(torch.eye(3, dtype=torch.float64))
    drive = drive_for(cell)
    rates = torch.full((3, 3), 0.5, dtype=torch.float64)
    torch.testing.assert_close(contraction(cell, drive, 4), rates, rtol=1e-12, atol=0)
    expected = 1 / (2 ** torch.arange(1, 4, dtype=torch.float64) - 1)  # h_t = 2 (1 - 2^-t) z
    torch.testing.assert_close(residuals(cell, drive, 3), expected[:, None].expand(3, 3), rtol=1e-12, atol=0)
    state = (torch.ones_like(drive),)
    torch.testing.assert_close(spectral_radius(cell, drive, state), rates[0], rtol=1e-12, atol=0)
    assert lipschitz_coefficient(cell, drive, state, bound=0.25) == pytest.approx(0.25**2)
    assert torch.equal(state[0], torch.ones_like(drive))


def test_eigenvalues_of_equal_modulus_are_found_densely(monkeypatch):
    monkeypatch.setattr("crbp_d2.recurrence.diagnostics.DENSE", 44)
    size = 45
    cell = LinearCell(0.9 * torch.eye(size, dtype=torch.float64).roll(1, dims=0))
    drive = drive_for(cell, samples=1)
    found = spectral_radius(cell, drive, cell.initial_state(drive))
    assert found.item() == pytest.approx(0.9, rel=1e-6)


@pytest.mark.parametrize("settings", [{"tol": 0}, {"tol": float("nan")}, {"samples": [3]}, {"samples": [1.5]}], ids=str)
def test_settings_of_the_spectral_radius_are_checked(settings):
    cell = TanhCell()
    drive = drive_for(cell)
    with pytest.raises(SettingError, match=f"spectral_radius: {next(iter(settings))}"):
        spectral_radius(cell, drive, cell.initial_state(drive), **settings)


@pytest.mark.parametrize("measure,minimum", [(residuals, 1), (contraction, 2), (trajectory, 0)])
def test_steps_of_diagnostics_are_whole_numbers(measure, minimum):
    cell = TanhCell()
    for steps in (minimum - 1, 2.5, None):
        with pytest.raises(SettingError, match=f"{measure.__name__}: steps is {steps}"):
            measure(cell, drive_for(cell), steps)


@pytest.mark.parametrize("measure", [spectral_radius, lipschitz_coefficient])
def test_a_bare_tensor_is_no_state_to_measure_at(measure):
    cell = TanhCell()
    with pytest.raises(ValueError, match=r"TanhCell must be a tuple of"):
        measure(cell, drive_for(cell), drive_for(cell))
