"""Compiled cells: the steps without a graph are compiled, the step that a series goes through is eager."""

import pytest
import torch

from crbp_d2.cells import ConvGRUCell
from crbp_d2.recurrence import learning_rule

# torch's compiler warns about itself.
pytestmark = pytest.mark.filterwarnings("ignore")
RULES = ("crbp", "rbp", "deq", "cbptt", "bptt", "progressive", "phantom")


def gradients(cell, part, rule):
    torch.manual_seed(1)
    cell.zero_grad()
    output = learning_rule(rule, part, steps=4, truncation=2, num_terms=3)(torch.ones(2, 4, 5, 5))
    (output.state[0].sin().sum() + 1e-3 * output.penalty).backward()
    return torch.cat([p.grad.flatten() for p in cell.parameters()])


@pytest.mark.parametrize("in_place", [False, True], ids=["torch.compile", "compile"])
def test_every_rule_has_the_gradients_of_the_eager_cell(in_place):
    torch.manual_seed(0)
    cell = ConvGRUCell(4, 3, norm="GN")
    truth = {rule: gradients(cell, cell, rule) for rule in RULES}
    if in_place:
        cell.compile(backend="aot_eager")
        keys = list(cell.state_dict())
        assert all("_orig_mod" not in key for key in keys)
    part = cell if in_place else torch.compile(cell, backend="aot_eager")
    for rule in RULES:
        torch.testing.assert_close(gradients(cell, part, rule), truth[rule], rtol=1e-4, atol=1e-6)


def test_a_compiled_recurrence_runs_as_it_is():
    torch.manual_seed(0)
    recurrence = learning_rule("crbp", ConvGRUCell(4, 3), steps=3, num_terms=2)
    drive = torch.randn(2, 4, 5, 5)
    compiled = torch.compile(lambda z: recurrence(z).state[0] * 2, backend="aot_eager")
    torch.testing.assert_close(compiled(drive), 2 * recurrence(drive).state[0])
