"""Forward mode, transforms of torch.func, inference mode, tensor subclasses, half precision: exact, or an error."""

import pytest
import torch
from helpers.problems import TanhCell, dense_jacobian, drive_for, iterate, push
from torch.autograd import forward_ad
from torch.func import functional_call

from crbp_d2.cells import HGRUCell
from crbp_d2.recurrence import learning_rule, lipschitz_coefficient, spectral_radius

IMPLICIT = ["rbp", "crbp", "deq"]


def tangent_of(cell, drive, direction):
    """The derivative of the fixed point along a direction of the drive, by a dense solve."""
    at = iterate(cell, drive, 500)
    identity = torch.eye(at[0].shape[1], dtype=drive.dtype)
    _, pushed = torch.autograd.functional.jvp(lambda z: cell(z, at)[0], drive, direction)
    return torch.linalg.solve(identity - dense_jacobian(cell, drive, at), pushed[..., None])[..., 0]


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("rule", ["bptt", "cbptt", "phantom", *IMPLICIT])
def test_forward_mode_is_exact_or_raises(rule, grad, frozen):
    cell = TanhCell().requires_grad_(not frozen)
    drive = drive_for(cell)
    direction = torch.linspace(-1, 1, drive.numel(), dtype=drive.dtype).view_as(drive)
    recurrence = learning_rule(rule, cell, steps=200, tol=1e-10)
    with forward_ad.dual_level(), torch.set_grad_enabled(grad):
        try:
            state = recurrence(forward_ad.make_dual(drive, direction)).state[0]
        except RuntimeError as error:
            assert "forward mode" in str(error) and rule != "bptt"
            return
        found = forward_ad.unpack_dual(state).tangent
    torch.testing.assert_close(found, tangent_of(cell, drive, direction), rtol=0, atol=1e-9)
    assert rule in ("bptt", "cbptt") or not grad or frozen


TRANSFORMS = {
    "grad": lambda f, z: torch.func.grad(lambda z: f(z).sum())(z),
    "jvp": lambda f, z: torch.func.jvp(f, (z,), (torch.ones_like(z),)),
    "vmap": lambda f, z: torch.vmap(lambda one: f(one[None]))(z),
    "vectorized": lambda f, z: torch.autograd.functional.jacobian(f, z, vectorize=True),
}


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("rule", ["cbptt", "tbptt", *IMPLICIT])
def test_transforms_of_torch_func_raise_one_sentence(rule, transform):
    cell = TanhCell()
    recurrence = learning_rule(rule, cell, steps=5)
    call = lambda z: recurrence(z).state[0]  # noqa: E731
    if transform == "vectorized" and rule in ("cbptt", "tbptt"):
        assert TRANSFORMS[transform](call, drive_for(cell)).any()  # of plain steps it is exact
        return
    with pytest.raises(RuntimeError, match=r"torch\.func|forward mode|vectorize"):
        TRANSFORMS[transform](call, drive_for(cell))


def test_unrolled_steps_can_be_transformed():
    cell = TanhCell()
    drive = drive_for(cell)
    recurrence = learning_rule("bptt", cell, steps=200)
    at = iterate(cell, drive, 300)
    identity = torch.eye(5, dtype=torch.float64)
    ones = torch.ones(3, 5, 1, dtype=torch.float64)
    u = torch.linalg.solve(identity - dense_jacobian(cell, drive, at).mT, ones)[..., 0]
    weight, _, truth = push(cell, drive.requires_grad_(), at, u)
    drive = drive.detach()
    found = torch.func.grad(lambda z: recurrence(z).state[0].sum())(drive)
    torch.testing.assert_close(found, truth, rtol=0, atol=1e-10)
    parameters = {name: p.detach() for name, p in recurrence.named_parameters()}
    of_parameters = torch.func.grad(lambda p: functional_call(recurrence, p, (drive,)).state[0].sum())(parameters)
    torch.testing.assert_close(of_parameters["cell.weight"], weight, rtol=0, atol=1e-10)


class Wrapped(torch.Tensor):
    """A subclass that adds nothing."""


@pytest.mark.parametrize("rule", ["bptt", "tbptt", "rbp", "crbp", "deq", "phantom"])
def test_a_drive_of_a_tensor_subclass_is_trained_on(rule):
    cell = TanhCell()
    found = []
    for drive in (drive_for(cell), drive_for(cell).as_subclass(Wrapped)):
        output = learning_rule(rule, cell, steps=20)(drive)
        found.append(torch.autograd.grad(output.state[0].sum() + output.penalty, cell.weight)[0])
    assert found[0].any() and torch.equal(*found)


@pytest.mark.parametrize("rule", ["bptt", "cbptt", "tbptt", "rbp", "crbp", "deq"])
@pytest.mark.parametrize("steps", [1, 4])
def test_a_state_of_inference_mode_starts_a_training_run(rule, steps):
    cell = TanhCell()
    with torch.inference_mode():
        start, drive = drive_for(cell, seed=1), drive_for(cell)
    recurrence = learning_rule(rule, cell, steps=8)
    found = recurrence(drive, state=(start,), steps=steps).state[0]
    truth = recurrence(drive.clone(), state=(start.clone(),), steps=steps).state[0]
    a, b = (torch.autograd.grad(state.sum(), cell.weight)[0] for state in (found, truth))
    assert torch.equal(a, b) and a.any()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_diagnostics_do_not_hang_on_the_mode_they_are_called_in(mode):
    cell = TanhCell(rate=0.9)
    drive = drive_for(cell)
    at = iterate(cell, drive, 5)
    jacobian = dense_jacobian(cell, drive, at)
    with mode():
        drive, at = drive.clone(), tuple(part.clone() for part in at)
        radius, coefficient = spectral_radius(cell, drive, at), lipschitz_coefficient(cell, drive, at, 0.0)
    torch.testing.assert_close(radius, torch.linalg.eigvals(jacobian).abs().amax(dim=1), rtol=1e-10, atol=0)
    truth = jacobian.sum(dim=1).clamp(min=0).square().mean().item()
    assert coefficient == pytest.approx(truth, rel=1e-10) and truth > 0.01


def test_states_are_float32_under_autocast_whatever_the_drive():
    torch.manual_seed(0)
    cell, drive = HGRUCell(8, 3, norm="GN", timescale=60), torch.randn(2, 8, 12, 12)
    recurrence = learning_rule("rbp", cell, steps=60)
    with torch.no_grad():
        truth = recurrence(drive).state[0]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            (found,) = recurrence(drive.bfloat16()).state
    # A state of bfloat16 is 0.013 off.
    assert found.dtype == torch.float32 and (found - truth).norm() < 0.004 * truth.norm()
