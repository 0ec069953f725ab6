"""States of a head's run, recorded from outside."""

import weakref

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.structures import Instances

from crbp_d2.cells import ConvLSTMCell, HGRUCell
from crbp_d2.evaluation import record_states
from crbp_d2.modeling import RecurrentMaskHead
from crbp_d2.recurrence import learning_rule


def states_by_hand(cell, drive, steps):
    state, states = cell.initial_state(drive), []
    for _ in range(steps):
        state = cell(drive, state)
        states.append(state)
    return states


@pytest.mark.parametrize("longest", [0, 7])
@pytest.mark.parametrize("cell", [HGRUCell(3, 3), ConvLSTMCell(3, 3)], ids=["hgru", "lstm"])
def test_every_state_is_recorded_behind_the_callers_back(cell, longest):
    torch.manual_seed(0)
    drive = torch.randn(2, 3, 6, 6)
    recurrence = learning_rule("bptt", cell, steps=4).eval()
    with torch.no_grad():
        truth = states_by_hand(cell, drive, 7)
        with record_states(recurrence, longest) as run:
            own, asked = recurrence(drive), recurrence(drive, steps=2)
        after = recurrence(drive)
    assert own.states is None and asked.states is None and after.states is None
    assert [len(output.states) for output in run.outputs] == [max(4, longest), max(2, longest)]
    for found, expected in zip((own.state, asked.state, after.state), (truth[3], truth[1], truth[3]), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    for t, state in enumerate(run.states):
        assert all(torch.equal(a, b) for a, b in zip(state, truth[t], strict=True))
    assert torch.equal(run.after(2)[0], truth[1][0])


def test_gradients_of_a_recorded_run_are_those_of_the_plain_one():
    torch.manual_seed(0)
    drive, cell = torch.randn(2, 3, 6, 6), HGRUCell(3, 3)
    recurrence = learning_rule("crbp", cell, steps=4)
    gradients = []
    for recorded in (False, True):
        cell.zero_grad()
        if recorded:
            with record_states(recurrence):
                output = recurrence(drive)
        else:
            output = recurrence(drive)
        (output.state[0].sum() + output.penalty).backward()
        gradients.append([p.grad.clone() for p in cell.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_contexts_nest_and_each_keeps_its_own_steps():
    torch.manual_seed(0)
    drive, cell = torch.randn(2, 3, 6, 6), HGRUCell(3, 3)
    recurrence = learning_rule("bptt", cell, steps=4).eval()
    with torch.no_grad():
        truth = states_by_hand(cell, drive, 9)
        with (
            record_states(recurrence) as own,
            record_states(recurrence, (2, 9)) as far,
            record_states(recurrence, 6, read=lambda state: state[0].sum()) as near,
        ):
            output, recorded = recurrence(drive), recurrence(drive, None, 3, record=True)
        again = recurrence(drive)
    assert torch.equal(output.state[0], truth[3][0]) and output.states is None and again.states is None
    assert [torch.equal(a[0], b[0]) for a, b in zip(recorded.states, truth[:3], strict=True)] == [True] * 3
    assert [len(run.states) for run in own.outputs] == [4, 3] and [len(run.states) for run in near.outputs] == [6, 6]
    assert (
        len(far.states) == 2 and torch.equal(far.after(9)[0], truth[8][0]) and torch.equal(far.after(2)[0], truth[1][0])
    )
    assert torch.equal(own.after(3)[0], truth[2][0]) and torch.equal(near.after(5), truth[4][0].sum())
    with pytest.raises(ValueError, match="after 3 steps was not kept"):
        far.after(3)


@pytest.mark.parametrize("rule", ["bptt_every_step", "crbp", "deq"])
def test_a_longer_run_leaves_the_callers_output(rule):
    """Also by a solver whose result is its best state, not its last one."""
    torch.manual_seed(0)
    drive, cell = torch.randn(3, 4, 7, 6), HGRUCell(4, 3)
    recurrence = learning_rule(rule, cell, steps=5).eval()
    with torch.no_grad():
        usual = recurrence(drive)
        with record_states(recurrence, (3, 11)) as run:
            output = recurrence(drive)
        longer = recurrence(drive, steps=11, record=True)
    assert [torch.equal(run.after(t)[0], longer.after(t)[0]) for t in (3, 11)] == [True, True]
    assert rule != "deq" or output.stats.steps == 5
    assert torch.equal(output.state[0], usual.state[0]) and (output.states is None) == (usual.states is None)
    for a, b in zip(output.supervised, usual.supervised, strict=True):
        assert a[0] == b[0] and torch.equal(a[1][0], b[1][0])


def test_a_solver_that_stops_early_ends_with_its_result():
    torch.manual_seed(0)
    recurrence = learning_rule("deq", HGRUCell(3, 3), steps=30, tol=1e-2).eval()
    drive = torch.randn(2, 3, 6, 6)
    with torch.no_grad(), record_states(recurrence, (1, 30)) as run:
        output = recurrence(drive)
    assert output.stats.steps < 30 and torch.equal(run.after(30)[0], output.state[0])


def test_only_the_steps_asked_for_are_kept():
    drive = torch.randn(1, 3, 6, 6)
    recurrence = learning_rule("crbp", HGRUCell(3, 3), steps=4).eval()
    references = []

    def states_alive(cell, args, output):
        references.append(weakref.ref(output[0]))
        return

    recurrence.cell.register_forward_hook(states_alive)
    with torch.no_grad(), record_states(recurrence, (2, 40)):
        recurrence(drive)
        # The two that were asked for, and the caller's.
        assert len(references) == 40 and sum(reference() is not None for reference in references) <= 3


def test_an_error_leaves_the_recurrence_as_it_was():
    recurrence = learning_rule("bptt", HGRUCell(3, 3), steps=2)
    with pytest.raises(RuntimeError, match="stop"), record_states(recurrence):
        raise RuntimeError("stop")
    assert not recurrence._forward_hooks and not recurrence._forward_pre_hooks


def test_nothing_has_run():
    with record_states(learning_rule("bptt", HGRUCell(3, 3), steps=2)) as run:
        pass
    with pytest.raises(ValueError, match="has not run"):
        run.after(1)


@pytest.mark.parametrize("count", [2, 0])
def test_masks_of_several_step_counts_come_from_one_run(count):
    torch.manual_seed(0)
    recurrence = learning_rule("bptt", HGRUCell(8, 3), steps=3)
    head = RecurrentMaskHead(ShapeSpec(channels=8), recurrence=recurrence, num_classes=2, test_steps=2).eval()
    evaluations = []
    recurrence.cell.register_forward_hook(lambda *_: evaluations.append(1))
    x = torch.randn(count, 8, 14, 14)

    def masks(steps):
        head.test_steps = steps
        return head(x, [Instances((32, 32), pred_classes=torch.arange(count))])[0].pred_masks

    with torch.no_grad():
        with record_states(recurrence, 4) as run:
            assert torch.equal(masks(2), head.read_out(run.after(2)[0]).sigmoid()[range(count), range(count)][:, None])
        assert len(evaluations) == 4
        for t in (1, 4):
            expected = masks(t)
            recorded = head.read_out(run.after(t)[0]).sigmoid()[range(count), range(count)][:, None]
            assert torch.equal(recorded, expected)
