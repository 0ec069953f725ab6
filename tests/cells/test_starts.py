"""The state that a run starts from."""

import pytest
import torch

from crbp_d2.cells import CELLS, build_cell
from crbp_d2.layers.norms import NORMS
from crbp_d2.recurrence import learning_rule


def cut(cell):
    """The cell without what connects its state: horizontal convolutions of the state give zeros."""
    with torch.no_grad():
        for name, part in cell.named_modules():
            if name in ("inhibition", "spatial_gate_2", "gates", "candidate", "recurrent"):
                part.weight.zero_()
            if name == "input_gate":
                part.bias.fill_(-torch.inf)
        if hasattr(cell, "alpha"):
            cell.alpha.zero_()
    return cell


def perturbed(cell):
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return cell


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(
    "name,settings", [*((name, {}) for name in CELLS), ("HGRUCell", {"form": "released"})], ids=str
)
def test_a_start_from_the_drive_is_a_fixed_point_without_others(name, settings, norm):
    """A fixed point of such a cell, also of the released form where the state does not enter its own softplus."""
    torch.manual_seed(0)
    cell = cut(
        perturbed(build_cell(name, 8, kernel_size=3, norm=norm, start="drive", timescale=4, **settings)).double()
    )
    drive = torch.randn(2, 8, 5, 6).double()
    with torch.no_grad():
        start = cell.initial_state(drive)
        if settings:
            cell.update_gate.weight.zero_()
            cell.update_gate.bias.fill_(torch.inf)
        after = cell(drive, start)
    assert all(part.any() for part in start)
    for a, b in zip(after, start, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", CELLS)
def test_it_is_nearer_to_the_same_fixed_point(name):
    torch.manual_seed(0)
    cells = {
        start: build_cell(name, 4, kernel_size=3, norm="GN", start=start, timescale=8) for start in ("zero", "drive")
    }
    with torch.no_grad():
        for parameter in cells["zero"].parameters():
            if parameter.dim() == 4:
                parameter.mul_(0.5)  # Weak connections have a single fixed point.
    cells["drive"].load_state_dict(cells["zero"].state_dict())
    drive = torch.randn(2, 4, 6, 6).double()
    runs = {}
    with torch.no_grad():
        for start, cell in cells.items():
            recurrence = learning_rule("crbp", cell.double(), steps=3).eval()
            runs[start] = recurrence(drive).state[0], recurrence(drive, steps=500).state[0]
    torch.testing.assert_close(runs["drive"][1], runs["zero"][1], rtol=1e-6, atol=1e-8)
    errors = {start: (early - late).norm() for start, (early, late) in runs.items()}
    assert errors["drive"] < 0.8 * errors["zero"]


@pytest.mark.parametrize("rule", ["bptt", "crbp"])
@pytest.mark.parametrize("name", CELLS)
def test_gradients_reach_the_start_where_they_are_unrolled(name, rule):
    """The gradient in the drive, against differences; of one step of crbp it leaves the start out."""
    torch.manual_seed(0)
    cell = build_cell(name, 4, kernel_size=3, norm="GN", start="drive", timescale=4).double()
    recurrence = learning_rule(rule, cell, steps=2, num_terms=0)
    drive = torch.randn(1, 4, 3, 3).double().requires_grad_()
    fixed = cell.initial_state(drive.detach())
    with torch.no_grad():
        before = cell(drive, fixed)

    def run(z):
        return recurrence(z).state[0] if rule == "bptt" else cell(z, before)[0]

    (found,) = torch.autograd.grad(recurrence(drive).state[0].sin().sum(), drive)
    direction = torch.randn_like(drive)
    with torch.no_grad():
        difference = sum(s * run(drive + s * 1e-5 * direction).sin().sum() for s in (1, -1)) / 2e-5
    torch.testing.assert_close((found * direction).sum(), difference, rtol=1e-6, atol=1e-8)


def test_a_start_is_one_of_two():
    for name in CELLS:
        with pytest.raises(ValueError, match="start is 'one'.*zero.*drive"):
            build_cell(name, 8, start="one")
