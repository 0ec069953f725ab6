"""Steps from zero and steps in blocks of samples: the same as the plain step, up to rounding."""

import pytest
import torch
from torch import nn

from crbp_d2.cells import GalaHGRUCell, HGRUCell, build_cell
from crbp_d2.layers.cache import driven_by, solve_scope
from crbp_d2.layers.norms import NORMS
from crbp_d2.recurrence import cell_step as blocks
from crbp_d2.recurrence import learning_rule
from crbp_d2.recurrence.cell_step import block_sizes, in_blocks

CELLS = {
    "gala": lambda norm: GalaHGRUCell(64, norm=norm),
    "printed": lambda norm: HGRUCell(6, kernel_size=7, norm=norm),
    "released": lambda norm: HGRUCell(6, kernel_size=5, norm=norm, form="released"),
}


def perturbed(cell, scale=0.1):
    """Gains and biases that are not those of the initialization, so that none hides by being 0 or 1."""
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
    return cell


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", CELLS)
@torch.no_grad()
def test_the_first_step_is_the_step_from_zero(name, norm, layout):
    torch.manual_seed(0)
    cell = perturbed(CELLS[name](norm))
    drive = torch.randn(3, cell.channels, 9, 7).contiguous(memory_format=layout)
    (first,) = cell.first_step(drive, cell.initial_state(drive))
    (plain,) = cell(drive, cell.initial_state(drive))
    torch.testing.assert_close(first, plain, rtol=2e-6, atol=1e-6)
    assert first.stride() == plain.stride()


@torch.no_grad()
def test_blocks_give_the_same(monkeypatch):
    torch.manual_seed(0)
    cell = perturbed(GalaHGRUCell(64))
    drive, state = (x.contiguous(memory_format=torch.channels_last) for x in torch.randn(2, 7, 64, 10, 10))
    whole, first = cell(drive, (state,))[0], cell.first_step(drive, cell.initial_state(drive))[0]
    seen = []
    cell.excitation.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    monkeypatch.setattr(blocks, "BLOCK", drive[:3].numel())
    split, first_split = cell(drive, (state,))[0], cell.first_step(drive, cell.initial_state(drive))[0]
    assert seen == [3, 2, 2] * 2
    torch.testing.assert_close((split, first_split), (whole, first), rtol=1e-5, atol=1e-5)
    assert split.stride() == whole.stride()


def test_with_a_graph_or_a_norm_over_the_batch_nothing_is_split(monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", 1)
    seen = []

    def step(drive, state):
        seen.append(len(drive))
        return state

    x = torch.randn(4, 2, 3, 3)
    in_blocks(step, nn.Identity(), x, (x,))
    with torch.no_grad():
        in_blocks(step, nn.BatchNorm2d(2), x, (x,))
        in_blocks(step, nn.Identity(), x[:0], (x[:0],))
        assert seen == [4, 4, 0]
        in_blocks(step, nn.Identity(), x, (x,))
    assert seen == [4, 4, 0, 1, 1, 1, 1]


@pytest.mark.parametrize("count", [0, 1, 20, 21, 100])
def test_blocks_are_as_equal_as_can_be(count):
    sizes = block_sizes(torch.empty(count, 256, 14, 14, device="meta"))
    assert sum(sizes) == count and max(sizes) - min(sizes) <= 1 and max(sizes) * 256 * 14 * 14 <= blocks.BLOCK


class CountingCell(nn.Module):
    """h' = h / 2 + z, which tells how its steps were taken."""

    channels = 2

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.calls = []

    def initial_state(self, drive):
        return (torch.zeros_like(drive),)

    def forward(self, drive, state):
        self.calls.append("step")
        return (state[0] / 2 + self.scale * drive,)

    def first_step(self, drive, state):
        self.calls.append("first")
        return (self.scale * drive,)


@pytest.mark.parametrize(
    "settings",
    [{}, {"rule": "deq", "tol": 1e-6}, {"early_stop": 1e-3}, {"chunk_size": 2}, {"rule": "bptt"}, {"rule": "tbptt"}],
    ids=str,
)
@pytest.mark.filterwarnings("ignore::crbp_d2.recurrence.UnconvergedWarning")
def test_a_run_from_the_initial_state_takes_the_first_step(settings):
    """Only without a graph, and only where the run starts from the cell's own state."""
    settings = dict(settings)
    rule = settings.pop("rule", "crbp")
    cell = CountingCell()
    recurrence = learning_rule(rule, cell, steps=4, **settings)
    drive = torch.randn(3, 2, 4, 4)
    truth = sum(0.5**k for k in range(4)) * drive
    recurrence(drive)
    unrolled = rule == "bptt"
    assert ("first" in cell.calls) == (not unrolled)
    cell.calls.clear()
    recurrence.eval()
    with torch.no_grad():
        state = recurrence(drive).state[0]
    assert cell.calls[0] == "first" and cell.calls.count("first") == 1
    if rule != "deq":
        torch.testing.assert_close(state, truth)
    cell.calls.clear()
    with torch.no_grad():
        recurrence(drive, state=(torch.zeros_like(drive),))
        assert "first" not in cell.calls
        with torch.autocast("cpu", dtype=torch.bfloat16):
            recurrence(drive)
    assert "first" not in cell.calls


class OtherForward(GalaHGRUCell):
    def forward(self, drive, state):
        return super().forward(2 * drive, state)


class OtherStart(GalaHGRUCell):
    def initial_state(self, drive):
        return (0.3 * torch.ones_like(drive),)


def hooked(cell):
    cell.register_forward_pre_hook(lambda module, inputs: (2 * inputs[0], inputs[1]))
    return cell


def patched(cell):
    plain = cell.forward
    cell.forward = lambda drive, state: plain(2 * drive, state)
    return cell


@pytest.mark.parametrize(
    "build",
    [OtherForward, OtherStart, lambda channels: hooked(GalaHGRUCell(channels)),
     lambda channels: patched(GalaHGRUCell(channels))],
    ids=["forward of a subclass", "start of a subclass", "hook", "forward of the instance"],
)  # fmt: skip
def test_a_cell_that_was_changed_takes_its_own_first_step(build):
    torch.manual_seed(0)
    cell = perturbed(build(32))
    drive = torch.randn(2, 32, 6, 6)
    state = cell.initial_state(drive)
    for _ in range(2):
        state = cell(drive, state)
    with torch.no_grad():
        found = learning_rule("crbp", cell, steps=2)(drive, steps=2).state[0]
    torch.testing.assert_close(found, state[0].detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["ConvGRUCell", "ConvLSTMCell"])
@pytest.mark.parametrize("autocast", [False, True])
def test_the_drives_part_is_computed_once_a_solve(name, autocast, monkeypatch):
    torch.manual_seed(0)
    cell = build_cell(name, 8, kernel_size=3, norm="GN")
    drive, calls = torch.randn(3, 8, 6, 6), []
    plain = cell.input.forward
    monkeypatch.setattr(cell.input, "forward", lambda x: calls.append(len(x)) or plain(x))
    recurrence = learning_rule("crbp", cell, steps=5, early_stop=1e-6).eval()

    @torch.no_grad()
    def run():
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            return recurrence(drive).state

    @torch.no_grad()
    def step_by_step():
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            state = cell.initial_state(drive)
            for _ in range(5):
                state = cell(drive, state)
            return state

    found = run()
    assert calls == [3]
    torch.testing.assert_close(found, step_by_step(), rtol=1e-5, atol=1e-6)
    assert calls == [3] * 6
    with torch.no_grad():
        cell.input.weight.mul_(2)
    assert not torch.equal(run()[0], found[0])
    assert calls == [3] * 7
    calls.clear()
    recurrence.train()(drive)  # The recorded step has a graph of its own.
    assert calls == [3, 3]
    calls.clear()
    learning_rule("bptt", cell, steps=5)(drive)
    assert calls == [3] * 5


@torch.no_grad()
def test_the_drives_part_is_computed_anew_where_it_may_have_changed():
    layer = nn.Conv2d(2, 2, 1)
    calls = []
    x = torch.randn(2, 2, 3, 3)
    with solve_scope():
        first = driven_by(x, layer)
        assert driven_by(x, layer) is first
        layer.weight.add_(1)
        assert driven_by(x, layer) is not first and torch.equal(driven_by(x, layer), layer(x))
        x.mul_(2)
        assert torch.equal(driven_by(x, layer), layer(x))
        other = x[:1]
        assert torch.equal(driven_by(other, layer), layer(other))
        layer.register_forward_hook(lambda *_: calls.append(1))
        driven_by(x, layer), driven_by(x, layer)
    assert len(calls) == 2
