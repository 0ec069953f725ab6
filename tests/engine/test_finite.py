"""No update that is not finite, and a message that says what went bad."""

import pytest
import torch
from detectron2.config import get_cfg
from helpers.problems import TanhCell
from torch import nn

from crbp_d2.engine.loop import guard_finite
from crbp_d2.engine.optimizer import clip_gradients
from crbp_d2.recurrence import learning_rule


class Model(nn.Module):
    """Two losses on a recurrence, each multiplied by what the input says."""

    def __init__(self):
        super().__init__()
        self.recurrence = learning_rule("crbp", TanhCell(), steps=4)

    def forward(self, factors):
        state = self.recurrence(torch.ones(2, 5, dtype=torch.float64)).state[0]
        return {"loss_a": state.sum() * factors[0], "loss_b": (state * 0).sqrt().sum() + state.sum() * factors[1]}


@pytest.fixture
def guarded():
    model = Model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    guard_finite(model, optimizer, lambda: 17)
    return model, optimizer


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_bad_loss_is_named_before_the_backward_pass(guarded, bad):
    model, _ = guarded
    with pytest.raises(FloatingPointError, match=r"^loss_a = (nan|-?inf) at iteration 17; .*recurrence: 4 steps"):
        model([bad, 1.0])


def test_a_bad_gradient_of_finite_losses_is_not_applied(guarded):
    model, optimizer = guarded
    before = [p.detach().clone() for p in model.parameters()]
    losses = model([1.0, 1.0])
    assert all(loss.isfinite() for loss in losses.values())
    # The square root of zero has no finite derivative.
    sum(losses.values()).backward()
    with pytest.raises(FloatingPointError, match="iteration 17, no update was applied; 2 parameters, first recurrence"):
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_a_good_step_and_evaluation_pass(guarded):
    model, optimizer = guarded
    before = [p.detach().clone() for p in model.parameters()]
    model([1.0, 1.0])["loss_a"].backward()
    optimizer.step()
    assert all(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert model.eval()([float("nan"), 1.0])["loss_a"].isnan()


class Scaled(nn.Module):
    """One loss whose gradient by `weight` is what the input says."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(4))
        self.unused = nn.Parameter(torch.zeros(2))

    def forward(self, gradient):
        return {"loss": (self.weight * gradient).sum()}


def step_of(gradient, optimizer_type=torch.optim.SGD, clipping=None):
    """Take one guarded step; the weight after it."""
    model = Scaled()
    optimizer = optimizer_type(model.parameters(), lr=1.0)
    if clipping:
        settings = get_cfg().SOLVER.CLIP_GRADIENTS
        settings.merge_from_list(["CLIP_TYPE", clipping, "CLIP_VALUE", 0.5])
        clip_gradients(optimizer, settings)
    guard_finite(model, optimizer, lambda: 3, clips_values=clipping == "value")
    model.weight.grad = None if gradient is None else torch.tensor(gradient)
    try:
        optimizer.step()
    finally:
        assert model.weight.isfinite().all()
    return model.weight.tolist()


@pytest.mark.parametrize("clipping", [None, "value", "norm"])
def test_a_step_without_any_gradient_passes(clipping):
    assert step_of(None, clipping=clipping) == [0, 0, 0, 0]


@pytest.mark.parametrize("clipping", [None, "value", "norm"])
@pytest.mark.parametrize("bad", [float("inf"), float("-inf"), float("nan")])
def test_a_gradient_is_checked_before_it_is_clipped(clipping, bad):
    with pytest.raises(FloatingPointError, match="gradient not finite at iteration 3.*first weight"):
        step_of([1.0, bad, 0.0, 2.0], clipping=clipping)


@pytest.mark.parametrize("optimizer_type,clipping", [(torch.optim.SGD, None), (torch.optim.Adam, "norm")])
def test_a_norm_that_overflows_is_called_that(optimizer_type, clipping):
    with pytest.raises(FloatingPointError) as raised:
        step_of([3e30, 1.0, 1.0, 1.0], optimizer_type, clipping)
    message = str(raised.value)
    assert "norm" in message and "overflows" in message and "weight" in message and "3e+30" in message
    assert "not finite" not in message


def test_large_finite_gradients_are_clipped_by_value():
    assert step_of([3e30, -3e30, 0.25, 0.0], clipping="value") == [-0.5, 0.5, -0.25, 0]


def test_the_guard_goes_with_a_scheduler():
    model = Scaled()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    guard_finite(model, optimizer, lambda: 3)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: 0.5**k)
    for _ in range(2):
        model(torch.ones(4))["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
    assert model.weight.tolist() == [-1.5] * 4
