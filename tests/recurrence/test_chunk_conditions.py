"""The last step of a chunk is repeated in the backward pass under the conditions of the first time."""

import threading

import pytest
import torch
from helpers.problems import TanhCell, drive_for, gradients, loss_of
from torch import nn
from torch.func import functional_call

from crbp_d2.recurrence import learning_rule


def agree(found, truth, atol=1e-12):
    for a, b in zip(found, truth, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=atol)


class NormedCell(nn.Module):
    """h' = tanh(W h / 2 + z) with W of spectral norm 1, whose power iteration writes into buffers at every step."""

    channels = 5

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.utils.parametrizations.spectral_norm(nn.Linear(5, 5, bias=False).double())

    def initial_state(self, drive):
        return (torch.zeros_like(drive),)

    def forward(self, drive, state):
        return (torch.tanh(0.5 * self.linear(state[0]) + drive),)


def test_buffers_are_those_of_the_first_time_and_change_once():
    cells = NormedCell(), NormedCell()
    drive = drive_for(cells[0], samples=5).requires_grad_()
    state = learning_rule("rbp", cells[0], steps=1, num_terms=0, chunk_size=3)(drive).state
    after = [buffer.clone() for buffer in cells[0].buffers()]
    found = gradients(cells[0], drive, loss_of(state))
    assert all(map(torch.equal, after, cells[0].buffers()))
    parts = [cells[1](part, cells[1].initial_state(part))[0] for part in drive.split(3)]
    assert torch.equal(state[0], torch.cat(parts))
    agree(found, gradients(cells[1], drive, loss_of((torch.cat(parts),))), atol=1e-15)


class DroppingCell(TanhCell):
    def forward(self, drive, state):
        return (nn.functional.dropout(super().forward(drive, state)[0], 0.5, self.training),)


def test_a_change_of_mode_between_the_passes_changes_nothing():
    cell = DroppingCell()
    drive = drive_for(cell, samples=5).requires_grad_()
    recurrence = learning_rule("rbp", cell, steps=3, num_terms=2, chunk_size=2)
    found = []
    for change in (lambda: None, recurrence.eval):
        torch.manual_seed(0)
        loss = loss_of(recurrence.train()(drive).state)
        change()
        found.append(gradients(cell, drive, loss))
    assert not cell.training
    agree(*found, atol=0)


@pytest.mark.parametrize("chunk_size", [0, 2])
def test_frozen_tensors_of_a_functional_call_are_kept_for_the_backward_pass(chunk_size):
    cell = TanhCell()
    drive = drive_for(cell, samples=5)
    recurrence = learning_rule("rbp", cell, steps=100, num_terms=100, chunk_size=chunk_size)
    weight = (0.7 * cell.weight).detach().requires_grad_()
    others = {"cell.weight": weight, "cell.input": 0.5 * cell.input.detach()}
    state = functional_call(recurrence, others, (drive,)).state
    (found,) = torch.autograd.grad(loss_of(state), weight)
    state = functional_call(learning_rule("bptt", cell, steps=200), others, (drive,)).state
    (truth,) = torch.autograd.grad(loss_of(state), weight)
    torch.testing.assert_close(found, truth, rtol=1e-9, atol=0)


class Plain:
    """A cell that is no module."""

    channels = 5

    def initial_state(self, drive):
        return (torch.zeros_like(drive),)

    def __call__(self, drive, state):
        return (0.5 * state[0] + drive,)


def test_a_cell_without_parameters_need_not_be_a_module():
    drive = drive_for(Plain(), samples=5).requires_grad_()
    state = learning_rule("crbp", Plain(), steps=60, num_terms=60, chunk_size=2)(drive).state[0]
    (found,) = torch.autograd.grad(state.sum(), drive)
    torch.testing.assert_close(found, torch.full_like(drive, 2.0), rtol=1e-12, atol=0)


def test_threads_that_share_a_model_get_their_own_gradients():
    cell = TanhCell()
    parameters = list(cell.parameters())
    recurrence = learning_rule("rbp", cell, steps=20, num_terms=20, chunk_size=2)
    drives = [drive_for(cell, samples=5, seed=seed) for seed in range(4)]

    def run(drive):
        return torch.autograd.grad(loss_of(recurrence(drive).state), parameters)

    truth, wrong = [run(drive) for drive in drives], []

    def work(k):
        for _ in range(20):
            try:
                agree(run(drives[k]), truth[k], atol=0)
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert all(a is b for a, b in zip(parameters, cell.parameters(), strict=True))


def test_each_pass_through_a_kept_graph_is_reported_once():
    cell = TanhCell()
    output = learning_rule("rbp", cell, steps=5, chunk_size=2)(drive_for(cell, samples=5))
    reported = []
    output.stats.on_backward = reported.append
    found = [torch.autograd.grad(output.state[0].sum(), cell.weight, retain_graph=k < 2)[0] for k in range(3)]
    assert len(reported) == 3 and torch.equal(found[0], found[2])
