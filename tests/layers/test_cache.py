"""Spectra and driven parts: computed once a solve, never of a weight or drive as it was before."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize, vector_to_parameters

from crbp_d2.cells import build_cell
from crbp_d2.layers import fourier
from crbp_d2.layers.cache import solve_scope
from crbp_d2.layers.convolution import HorizontalConv2d, set_convolution
from crbp_d2.recurrence import FixedSteps, Recurrence, Unrolled, learning_rule


@pytest.fixture
def conv():
    torch.manual_seed(0)
    return HorizontalConv2d(3, 4, 5, method="fft").double()


@pytest.fixture
def computed(monkeypatch):
    """One entry for each spectrum."""
    calls = []
    plain = fourier.kernel_spectrum
    monkeypatch.setattr(fourier, "kernel_spectrum", lambda *args: calls.append(args) or plain(*args))
    return calls


def image(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def check(conv, x):
    truth = F.conv2d(x, conv.weight, padding=2)
    torch.testing.assert_close(conv(x), truth, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name,weights", [("HGRUCell", 2), ("ConvLSTMCell", 2)])
def test_a_training_step_computes_each_spectrum_once(name, weights, computed):
    cell = build_cell(name, 3, kernel_size=5).double()
    set_convolution(cell, "fft")
    recurrence = learning_rule("crbp", cell, steps=4, num_terms=5)
    output = recurrence(image(2, 3, 8, 8))
    output.state[0].sum().backward()
    assert len(computed) == weights
    with torch.no_grad():
        recurrence(image(2, 3, 8, 8))
    assert len(computed) == 2 * weights  # Nothing outlives a solve.


def test_spectra_made_in_inference_mode_serve_training(conv):
    x = image(2, 3, 9, 8)
    with solve_scope():
        with torch.inference_mode():
            conv(x)
        conv(x).sin().sum().backward()
    truth = torch.autograd.grad(F.conv2d(x, conv.weight, padding=2).sin().sum(), conv.weight)[0]
    torch.testing.assert_close(conv.weight.grad, truth, rtol=0, atol=1e-11)


def fused_optimizer_step(conv):
    conv.weight.grad = torch.ones_like(conv.weight)
    torch.optim.SGD([conv.weight], lr=0.1, fused=True).step()


CHANGES = {
    "in place": lambda conv: nn.init.ones_(conv.weight),
    "data in place": lambda conv: conv.weight.data.mul_(-1),
    "other data": lambda conv: setattr(conv.weight, "data", conv.weight.data + 1),
    "fused optimizer": fused_optimizer_step,
    "vector": lambda conv: vector_to_parameters(conv.weight.detach().flatten() + 1, [conv.weight]),
    "loaded": lambda conv: conv.load_state_dict({"weight": conv.weight + 1}),
    "another parameter": lambda conv: setattr(conv, "weight", nn.Parameter(conv.weight.detach() * 3)),
    "numpy": lambda conv: conv.weight.detach().numpy().__imul__(2),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_weight_that_changes_between_solves(conv, change):
    x = image(2, 3, 9, 8)
    for _ in range(2):
        with solve_scope():
            check(conv, x)
        change(conv)
    check(conv, x)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_weight_that_is_written_to_within_a_solve(conv, computed, mode):
    x = image(2, 3, 9, 8)
    with solve_scope(), mode():
        check(conv, x)
        check(conv, x)
        assert len(computed) == 1
        conv.weight.mul_(2)
        check(conv, x)
    assert len(computed) == 2


def test_functional_call_and_spectral_norm_within_a_solve(conv):
    x = image(2, 3, 9, 8)
    with solve_scope():
        check(conv, x)
        weight = (2 * conv.weight.detach()).requires_grad_()
        y, truth = functional_call(conv, {"weight": weight}, (x,)), F.conv2d(x, weight, padding=2)
        torch.testing.assert_close(y, truth, rtol=0, atol=1e-12)
        found, expected = (torch.autograd.grad(value.sin().sum(), weight)[0] for value in (y, truth))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)
        normed = parametrizations.spectral_norm(conv).eval()
        for _ in range(2):
            check(normed, x)


def test_copies_and_files(conv):
    x = image(2, 3, 9, 8)
    with solve_scope():
        y = conv(x)
        file = io.BytesIO()
        torch.save(conv, file)
        file.seek(0)
        for other in (copy.deepcopy(conv), pickle.loads(pickle.dumps(conv)), torch.load(file, weights_only=False)):
            assert torch.equal(other(x), y)
            with torch.no_grad():
                other.weight.mul_(2)
            check(other, x)
    assert list(conv.state_dict()) == ["weight"]


@pytest.mark.parametrize("name", ["ConvGRUCell", "ConvLSTMCell"])
@pytest.mark.parametrize("autocast", [False, True])
def test_the_drives_part_is_computed_once_a_solve(name, autocast, monkeypatch):
    torch.manual_seed(0)
    cell = build_cell(name, 8, kernel_size=3, norm="GN")
    drive, calls = torch.randn(3, 8, 6, 6), []
    plain = cell.input._computed
    monkeypatch.setattr(cell.input, "_computed", lambda *args: calls.append(1) or plain(*args))
    recurrence = learning_rule("crbp", cell, steps=5).eval()

    def run(steps):
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            return steps()

    def one_by_one():
        state = cell.initial_state(drive)
        for _ in range(5):
            state = cell(drive, state)
        return state

    found = run(lambda: recurrence(drive).state)
    assert len(calls) == 1
    torch.testing.assert_close(found, run(one_by_one), rtol=1e-5, atol=1e-6)
    assert len(calls) == 6
    recurrence.train()(drive)  # The recorded step has a graph of its own.
    assert len(calls) == 8


def dropout(cell):
    cell.input = nn.Sequential(cell.input, nn.Dropout(0.5))


def counting(cell):
    class Counting(HorizontalConv2d):
        calls = 0

        def forward(self, x):
            self.calls += 1
            return super().forward(x) * self.calls

    cell.input.__class__ = Counting


def in_place_hook(cell):
    cell.input.register_forward_hook(lambda module, inputs, output: output.mul_(0.5))


def random_weight(cell):
    class Drawn(nn.Module):
        def forward(self, weight):
            return weight * torch.rand_like(weight)

    parametrize.register_parametrization(cell.input, "weight", Drawn())


def writing(part):
    def change(cell):
        def write(module, inputs):
            with torch.no_grad():
                (inputs[0] if part == "drive" else cell.input.weight).mul_(0.9)

        cell.register_forward_pre_hook(write)

    return change


PARTS = [dropout, counting, in_place_hook, random_weight, writing("drive"), writing("weight")]


MODES = [(torch.no_grad, torch.no_grad), (torch.inference_mode, torch.no_grad), (torch.inference_mode,) * 2]


@pytest.mark.parametrize("mode,drive_mode", MODES)
@pytest.mark.parametrize("change", PARTS)
def test_changed_parts_run_as_they_do_with_a_graph(change, mode, drive_mode):
    def run(context):
        torch.manual_seed(0)
        cell = build_cell("ConvGRUCell", 4, kernel_size=3, norm="GN").double()
        change(cell)
        with drive_mode():
            drive = image(2, 4, 5, 5) * 1
        torch.manual_seed(1)
        with context():
            return Recurrence(cell, FixedSteps(4), Unrolled())(drive).state[0].detach()

    torch.testing.assert_close(run(mode), run(torch.enable_grad), rtol=1e-10, atol=1e-10)
