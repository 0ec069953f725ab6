"""Every registered cell with every norm and every rule."""

import pytest
import torch

from crbp_d2.cells import CELLS, build_cell
from crbp_d2.layers.norms import NORMS
from crbp_d2.recurrence import RULES, learning_rule


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", CELLS)
def test_a_step_keeps_the_shape_of_every_tensor_of_the_state(name, norm):
    cell = build_cell(name, 8, kernel_size=3, norm=norm)
    drive = torch.randn(2, 8, 5, 6)
    state = cell.initial_state(drive)
    assert all(not part.any() for part in state)
    new = cell(drive, cell(drive, state))
    assert [part.shape for part in new] == [part.shape for part in state]
    assert all(part.isfinite().all() for part in new)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", CELLS)
@pytest.mark.filterwarnings("ignore::crbp_d2.recurrence.UnconvergedWarning")
def test_any_cell_goes_with_any_rule(name, rule):
    """One step and a series of no term make every rule the plain gradient of one step, deq one with one term more."""
    torch.manual_seed(0)
    cell = build_cell(name, 4, kernel_size=3).double()
    drive = torch.randn(2, 4, 5, 5).double()
    recurrence = learning_rule(rule, cell, steps=1, truncation=1, num_terms=0, bound=0.0, max_steps=1)
    output = recurrence(drive)
    loss = sum(part.sin().sum() for part in output.state)
    assert output.stats.steps == 1
    cell.zero_grad()
    loss.backward()
    ours = [p.grad.clone() for p in cell.parameters()]

    cell.zero_grad()
    start = tuple(part.requires_grad_() for part in cell.initial_state(drive))
    new = cell(drive, start)
    g = tuple(part.detach().cos() for part in new)
    if rule == "deq":
        pulled = torch.autograd.grad(new, start, g, retain_graph=True)
        g = tuple(a + b for a, b in zip(g, pulled, strict=True))
    truth = torch.autograd.grad(new, list(cell.parameters()), g)
    for a, b in zip(ours, truth, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


def test_unknown_cells_are_refused():
    with pytest.raises(ValueError, match="unknown cell 'LSTM'; known: ConvGRUCell, ConvLSTMCell"):
        build_cell("LSTM", 8)
