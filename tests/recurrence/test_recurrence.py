"""Running a recurrence: steps, statistics, precision, memory, refusals."""

import pytest
import torch
from helpers.problems import PLAIN, LinearCell, TanhCell, drive_for, iterate
from torch import nn

from crbp_d2.cells import GalaHGRUCell
from crbp_d2.recurrence import RULES, FixedSteps, Implicit, NeumannSeries, Recurrence, Unrolled, learning_rule
from crbp_d2.utils.errors import ContradictionError


@pytest.mark.parametrize("rule", PLAIN)
@pytest.mark.parametrize("steps", [1, 2, 9])
def test_forward_runs_exactly_the_steps(rule, steps):
    cell = TanhCell()
    drive = drive_for(cell)
    output = learning_rule(rule, cell, steps=4)(drive, steps=steps, record=True)
    assert output.stats.steps == steps
    assert len(output.states) == steps
    for t, state in enumerate(output.states, start=1):
        torch.testing.assert_close(state[0], iterate(cell, drive, t)[0], rtol=0, atol=1e-15)
    assert output.states[-1] is output.state


def test_residual_and_convergence_per_sample():
    cell = LinearCell(torch.diag(torch.tensor([0.5, 0.9], dtype=torch.float64)))
    drive = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    stats = learning_rule("rbp", cell, steps=12)(drive).stats
    truth = [0.5**11 / ((1 - 0.5**12) / 0.5), 0.9**11 / ((1 - 0.9**12) / 0.1)]
    torch.testing.assert_close(stats.residual, torch.tensor(truth, dtype=torch.float64), rtol=1e-12, atol=0)
    assert stats.converged.tolist() == [True, False]


def test_backward_report_arrives_with_the_backward_pass():
    cell = TanhCell()
    output = learning_rule("crbp", cell, steps=5)(drive_for(cell))
    seen = []
    output.stats.on_backward = seen.append
    assert output.stats.transpose is None
    output.state[0].sum().backward()
    assert seen == [output.stats]
    assert output.stats.transpose.sample_steps.tolist() == [15, 15, 15]


@pytest.mark.parametrize("rule", RULES)
def test_no_grad_runs_the_same_and_leaves_no_graph(rule):
    cell = TanhCell()
    drive = drive_for(cell)
    recurrence = learning_rule(rule, cell, steps=6).eval()
    with torch.no_grad():
        output = recurrence(drive)
    assert not output.state[0].requires_grad
    assert output.penalty.item() == 0
    assert torch.equal(output.state[0], recurrence(drive, steps=6).state[0])


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize(
    "rule,settings",
    [("cbptt", {}), ("crbp", {}), ("crbp", {"solver": "Anderson"}),
     ("progressive", {}), ("crbp", {"penalty": "Contraction"})],
    ids=str,
)  # fmt: skip
def test_training_without_gradients_has_the_penalty_value(rule, settings, mode):
    """A validation loss of a user's loop: the model in training mode, gradients off."""
    torch.manual_seed(0)
    cell = GalaHGRUCell(8, timescale=4)
    recurrence = learning_rule(rule, cell, steps=6, bound=0.0, **settings)
    drive = torch.randn(5, 8, 6, 6)
    torch.manual_seed(1)
    truth = recurrence(drive, steps=6)
    with mode():
        torch.manual_seed(1)
        # As in a model, where it comes from another layer.
        output = recurrence(drive * 1, steps=6, record=rule == "cbptt")
    assert (truth.penalty > 0) == (recurrence.penalty is not None)
    torch.testing.assert_close(output.penalty, truth.penalty.detach())
    torch.testing.assert_close(output.state[0], truth.state[0].detach())
    tensors = [output.penalty, *output.state, *(h for state in output.states or () for h in state)]
    tensors += [h for _, state in output.supervised for h in state]
    torch.testing.assert_close(output.loss(torch.mean), truth.loss(torch.mean).detach())
    assert not any(tensor.requires_grad for tensor in tensors)
    assert output.states is None or output.state is output.states[-1]


@pytest.mark.parametrize("rule", RULES)
def test_training_without_gradients_has_a_loss_and_usual_steps(rule):
    torch.manual_seed(0)
    recurrence = learning_rule(rule, GalaHGRUCell(8, timescale=4), steps=12)
    drive = torch.randn(2, 8, 6, 6)
    usual = recurrence.solver.steps
    with torch.no_grad():
        for _ in range(3):
            output = recurrence(drive)
            assert output.stats.steps == usual or rule not in PLAIN
            wanted = sum(weight * state[0].square().mean() for weight, state in output.supervised)
            assert sum(weight for weight, _ in output.supervised) == pytest.approx(1)
            torch.testing.assert_close(output.loss(lambda h: h.square().mean()), wanted)


@pytest.mark.parametrize("rule", RULES)
def test_empty_batch_gives_every_parameter_a_zero_gradient(rule):
    cell = GalaHGRUCell(8)
    output = learning_rule(rule, cell, steps=3)(torch.zeros(0, 8, 5, 5))
    (output.state[0].sum() + output.penalty).backward()
    assert output.penalty.item() == 0
    assert all(p.grad is not None and not p.grad.any() for p in cell.parameters())


def saved_bytes(rule: str, steps: int) -> int:
    """Bytes of distinct tensors that autograd holds between the forward and the backward pass."""
    torch.manual_seed(0)
    held = {}

    def pack(tensor):
        held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    recurrence = learning_rule(rule, GalaHGRUCell(16), steps=steps)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = recurrence(torch.randn(2, 16, 14, 14))
    output.state[0].sum().backward()
    return sum(held.values())


def test_one_step_is_held_for_the_backward_pass_however_many_ran():
    assert saved_bytes("crbp", 40) == saved_bytes("crbp", 2)
    assert saved_bytes("rbp", 40) == saved_bytes("rbp", 2)
    assert saved_bytes("bptt", 40) > 10 * saved_bytes("bptt", 2)


def test_without_penalty_it_is_a_zero_with_a_graph():
    cell = TanhCell()
    output = learning_rule("rbp", cell, steps=2)(torch.full((1, 5), torch.nan, dtype=torch.float64))
    assert output.penalty.requires_grad
    assert output.penalty.item() == 0


class ShapeChanger(nn.Module):
    channels = 3

    def initial_state(self, drive):
        return (drive.new_zeros(len(drive), 3),)

    def forward(self, drive, state):
        return (drive.new_zeros(len(drive), 4),)


def test_refusals_name_what_is_wrong():
    cell = TanhCell()
    with pytest.raises(ValueError, match="steps is 0.*whole numbers from 1"):
        learning_rule("crbp", cell, steps=0)
    with pytest.raises(ValueError, match="Recurrence: steps is 0"):
        learning_rule("crbp", cell, steps=3)(drive_for(cell), steps=0)
    with pytest.raises(ValueError, match="rule is 'crpb'.*did you mean .*'crbp'"):
        learning_rule("crpb", cell, steps=3)
    with pytest.raises(TypeError, match="unknown setting 'term'"):
        learning_rule("crbp", cell, steps=3, term=3)
    with pytest.raises(ValueError, match=r"bound is 1.*\[0, 1\)"):
        learning_rule("crbp", cell, steps=3, bound=1)
    with pytest.raises(ValueError, match="reduction is 'max'; allowed: mean, sum"):
        learning_rule("crbp", cell, steps=3, reduction="max")
    with pytest.raises(ValueError, match="supervision is 'every'.*Implicit"):
        Recurrence(cell, FixedSteps(3), Implicit(NeumannSeries()), supervision="every")
    with pytest.raises(ContradictionError, match="penalty is 'Lipschitz'.*rule is 'rbp'"):
        learning_rule("rbp", cell, steps=3, penalty="Lipschitz")
    with pytest.raises(ValueError, match="supervision is 'all'"):
        Recurrence(cell, FixedSteps(3), Unrolled(), supervision="all")
    with pytest.raises(ValueError, match="2 x 3 to one of 2 x 4"):
        learning_rule("bptt", ShapeChanger(), steps=1)(torch.zeros(2, 3))
    recurrence = learning_rule("crbp", GalaHGRUCell(8), steps=2)
    with pytest.raises(ValueError, match="2 x 12 x 5 x 5, but GalaHGRUCell"):
        recurrence(torch.zeros(2, 12, 5, 5))
    with pytest.raises(ValueError, match="1 x 8 x 5 x 5, but .* 2 x 8 x 5 x 5"):
        recurrence(torch.zeros(2, 8, 5, 5), state=(torch.zeros(1, 8, 5, 5),))
