"""A recurrence in which nothing requires a gradient."""

import pytest
import torch
from helpers.problems import PLAIN, TanhCell, drive_for

from crbp_d2.recurrence import RULES, learning_rule


@pytest.mark.filterwarnings("ignore::crbp_d2.recurrence.UnconvergedWarning")
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("rule", RULES)
def test_nothing_requires_a_gradient_and_no_graph_is_recorded(rule, training):
    cell, recorded = TanhCell().requires_grad_(False), []
    cell.register_forward_hook(lambda module, args, state: recorded.append(state[0].requires_grad))
    recurrence = learning_rule(rule, cell, steps=8).train(training)
    drive = drive_for(cell)
    output = recurrence(drive)
    assert not any(part.requires_grad for part in (output.penalty, *output.state))
    # Only the value of a penalty, in training, needs the graph of one step.
    assert sum(recorded) == (training and recurrence.penalty is not None)
    with torch.no_grad():
        torch.testing.assert_close(output.state[0], recurrence(drive, steps=output.stats.steps).state[0])


@pytest.mark.parametrize("rule", PLAIN)
def test_a_weight_outside_the_parameters_gets_its_gradient(rule):
    """In a list, as a hypernetwork may leave it."""
    cell = TanhCell().requires_grad_(False)
    weight = torch.eye(5, dtype=torch.float64).requires_grad_()
    cell.outside = [weight]
    plain = cell.forward
    cell.forward = lambda drive, state: plain(drive @ cell.outside[0], state)
    learning_rule(rule, cell, steps=4)(drive_for(cell)).state[0].sum().backward()
    assert weight.grad.any()
