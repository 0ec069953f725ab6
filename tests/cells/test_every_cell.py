"""Every registered cell with every norm and every rule."""

import re
from itertools import product

import pytest
import torch

from crbp_d2.cells import CELLS, FeedforwardControl, build_cell
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
def test_any_cell_has_the_gradient_of_any_rule(name, rule):
    """Truncated to one step, or with a series of no term, every rule has the plain gradient of its last step.

    deq has one term more. The other states read by progressive_mixed do not reach into the last step.
    """
    torch.manual_seed(0)
    cell = build_cell(name, 4, kernel_size=3).double()
    drive = torch.randn(2, 4, 5, 5).double()
    recurrence = learning_rule(
        rule,
        cell,
        steps=1,
        truncation=1,
        phantom_damping=1.0,
        num_terms=0,
        max_steps=1,
        bound=0.0,
    )
    output = recurrence(drive)
    loss = sum(part.sin().sum() for part in output.state)
    assert output.stats.steps == 1 or rule in ("progressive_far", "progressive_mixed")
    cell.zero_grad()
    loss.backward()
    ours = [p.grad.clone() for p in cell.parameters()]

    cell.zero_grad()
    start = cell.initial_state(drive)
    with torch.no_grad():
        for _ in range(output.stats.steps - 1):
            start = cell(drive, start)
    start = tuple(part.requires_grad_() for part in start)
    new = cell(drive, start)
    g = tuple(part.detach().cos() for part in new)
    if rule == "deq":
        pulled = torch.autograd.grad(new, start, g, retain_graph=True)
        g = tuple(a + b for a, b in zip(g, pulled, strict=True))
    truth = torch.autograd.grad(new, list(cell.parameters()), g)
    for a, b in zip(ours, truth, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


def test_unknown_cells_forms_and_widths_are_rejected():
    with pytest.raises(ValueError, match="cell is 'LSTM'; allowed: ConvGRUCell"):
        build_cell("LSTM", 8)
    with pytest.raises(ValueError, match="channels is 10; allowed: multiples of 4"):
        build_cell("GalaHGRUCell", 10)
    with pytest.raises(ValueError, match="form is 'other'; allowed: printed"):
        build_cell("HGRUCell", 8, form="other")


@pytest.mark.parametrize(
    "setting,value",
    [
        *product(("channels", "kernel_size", "timescale"), (0, -1, 2.5, float("nan"), True, "20")),
        ("kernel_size", 4),
    ],
)
@pytest.mark.parametrize("name", CELLS)
def test_settings_are_positive_whole_numbers(name, setting, value):
    settings = {"channels": 8, "kernel_size": 3, "timescale": 20, setting: value}
    with pytest.raises(ValueError, match=f"{setting}.*{re.escape(repr(value))}"):
        build_cell(name, settings.pop("channels"), **settings)


@pytest.mark.parametrize("value", [0, 2.5, float("nan"), True])
@pytest.mark.parametrize("setting", ["channels", "kernel_size", "num_layers"])
def test_settings_of_the_feedforward_control(setting, value):
    settings = {"channels": 8, "kernel_size": 3, "num_layers": 2, setting: value}
    with pytest.raises(ValueError, match=f"{setting}.*{re.escape(repr(value))}"):
        FeedforwardControl(**settings)
