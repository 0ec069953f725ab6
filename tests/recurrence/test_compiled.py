"""Compiled steps: the same values and gradients, few compilations, and nothing else changed."""

import copy

import pytest
import torch
from torch._dynamo.utils import counters

from crbp_d2.cells import HGRUCell
from crbp_d2.recurrence import compiled, learning_rule


@pytest.fixture(autouse=True)
def fresh_compiler(request, monkeypatch):
    """All of torch.compile but the generation of code, which takes long, except where a test asks for it."""
    torch._dynamo.reset()
    counters.clear()
    compiler = torch.compile(compiled._step, backend=getattr(request, "param", "aot_eager"))
    monkeypatch.setattr(compiled, "_compiler", lambda: compiler)


def problem(rule, **settings):
    torch.manual_seed(0)
    cell = HGRUCell(3, kernel_size=5, norm="LN").double()
    drive = torch.randn(2, 3, 6, 7, dtype=torch.float64).square().requires_grad_()
    both = {flag: learning_rule(rule, cell, steps=4, compile=flag, **settings) for flag in (False, True)}
    return cell, drive, both


@pytest.mark.parametrize(
    "fresh_compiler,rule", [("inductor", "crbp"), ("aot_eager", "bptt")], indirect=["fresh_compiler"]
)
def test_values_and_gradients_are_those_of_the_plain_steps(rule):
    cell, drive, both = problem(rule)
    results = {}
    for flag, recurrence in both.items():
        output = recurrence(drive)
        loss = output.state[0].sin().sum() + output.penalty
        results[flag] = (output.state[0], output.penalty, *torch.autograd.grad(loss, [*cell.parameters(), drive]))
    assert counters["stats"]["unique_graphs"] > 0
    assert rule == "bptt" or results[False][1] > 0
    for found, truth in zip(results[True], results[False], strict=True):
        torch.testing.assert_close(found, truth, rtol=1e-10, atol=1e-12)


def test_a_changing_number_of_samples_compiles_twice():
    _, drive, both = problem("rbp")
    counts = []
    for samples in (2, 5, 3, 7, 4, 0, 6):
        with torch.no_grad():
            many = torch.rand(samples, *drive.shape[1:], dtype=drive.dtype)
            found, truth = both[True](many).state[0], both[False](many).state[0]
        torch.testing.assert_close(found, truth, rtol=1e-10, atol=1e-12)
        counts.append(counters["stats"]["unique_graphs"])
    assert counts[0] > 0 and counts[1] <= 2 * counts[0] and counts[-1] == counts[1]


def test_checkpoints_are_the_same_and_a_copy_has_its_own_weights():
    _, drive, both = problem("rbp")
    recurrence = both[True]
    assert list(recurrence.state_dict()) == list(both[False].state_dict())
    with torch.no_grad():
        before = recurrence(drive).state[0]
        copied = copy.deepcopy(recurrence)
        copied.cell.mu += 1
        again = learning_rule("rbp", copied.cell, steps=4)(drive).state[0]
        torch.testing.assert_close(copied(drive).state[0], again, rtol=1e-10, atol=1e-12)
        assert not torch.allclose(before, again)
        torch.testing.assert_close(recurrence(drive).state[0], before, rtol=0, atol=0)
