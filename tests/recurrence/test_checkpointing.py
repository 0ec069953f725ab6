"""Recurrences inside torch's activation checkpointing."""

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from crbp_d2.cells import HGRUCell
from crbp_d2.recurrence import RULES, learning_rule

STEPS = 12


def problem(rule):
    """A recurrence, its drive and a list that grows with every evaluation of the cell."""
    torch.manual_seed(0)
    cell, evaluations = HGRUCell(4, 3, norm="GN"), []
    cell.register_forward_hook(lambda *_: evaluations.append(1))
    return learning_rule(rule, cell, steps=STEPS), torch.randn(3, 4, 6, 6, requires_grad=True), evaluations


def backward(recurrence, drive, wrapper):
    def run(drive):
        output = recurrence(drive, steps=STEPS)
        return output.state[0], output.penalty

    state, penalty = wrapper(run, drive)
    (state.sin().sum() + penalty).backward()
    return [drive.grad, *(parameter.grad for parameter in recurrence.parameters())]


@pytest.mark.filterwarnings("ignore::crbp_d2.recurrence.UnconvergedWarning")
@pytest.mark.parametrize("rule", RULES)
def test_a_run_is_repeated_once_at_most(rule):
    recurrence, drive, evaluations = problem(rule)
    plain = backward(recurrence, drive, lambda run, drive: run(drive))
    once = len(evaluations)
    recurrence, drive, evaluations = problem(rule)
    found = backward(recurrence, drive, lambda run, drive: checkpoint(run, drive, use_reentrant=False))
    assert len(evaluations) <= 2 * once
    assert all(torch.equal(ours, expected) for ours, expected in zip(found, plain, strict=True))


def test_a_weight_changed_in_between_is_noticed():
    recurrence, drive, _ = problem("rbp")
    state = checkpoint(lambda drive: recurrence(drive).state[0], drive, use_reentrant=False)
    with torch.no_grad():
        for parameter in recurrence.parameters():
            parameter.mul_(1.5)
    with pytest.raises(RuntimeError, match="inplace"):
        state.sum().backward()
