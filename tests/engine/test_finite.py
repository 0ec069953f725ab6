"""No update that is not finite, and a message that says what went bad."""

import pytest
import torch
from helpers.problems import TanhCell
from torch import nn

from crbp_d2.engine.finite import guard_finite
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
