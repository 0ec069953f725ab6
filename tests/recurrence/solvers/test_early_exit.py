"""Early stop: what a sample gets, what it costs, what is reported and rejected."""

import pytest
import torch
from helpers.problems import PLAIN, TanhCell, drive_for
from torch import nn

from crbp_d2.cells import GalaHGRUCell
from crbp_d2.recurrence import (
    Anderson,
    EarlyExit,
    FixedSteps,
    Implicit,
    RandomSteps,
    Recurrence,
    Truncated,
    Unrolled,
    learning_rule,
)
from crbp_d2.utils.errors import ContradictionError, SettingError

RATES = (0.3, 0.9, 0.05, 0.6, 0.99)
TOL = 1e-2


class RateCell(nn.Module):
    """h' = rate h + z, c' = h with each sample's own rate, and elementwise, so that a batch changes no bit of it."""

    channels = 2

    def __init__(self):
        super().__init__()
        self.seen = []  # samples of each evaluation

    def initial_state(self, drive):
        return torch.zeros_like(drive[:, :1]), torch.zeros_like(drive[:, :1])

    def forward(self, drive, state):
        self.seen.append(len(drive))
        return drive[:, :1] * state[0] + drive[:, 1:], state[0]


def rates_drive(rates=RATES):
    return torch.tensor([[rate, 1.0] for rate in rates], dtype=torch.float64)


@torch.no_grad()
def run(cell, drive, rule="crbp", steps=40, tol=TOL, **kwargs):
    return learning_rule(rule, cell, steps=steps, early_stop=tol).eval()(drive, **kwargs)


@torch.no_grad()
def by_hand(cell, drive, steps=40, tol=TOL):
    """The states of one sample up to its stop, and its residuals."""
    states, residuals = [cell.initial_state(drive)], []
    while len(residuals) < steps and not (residuals and residuals[-1] <= tol):
        states.append(cell(drive, states[-1]))
        old, new = (torch.cat([part.flatten() for part in state]) for state in states[-2:])
        residuals.append(((new - old).norm() / new.norm()).item())
    return states, residuals


@pytest.mark.parametrize("rule", PLAIN)
def test_a_sample_is_the_plain_run_cut_at_its_own_stop(rule):
    drive, cell = rates_drive(), RateCell()
    output = run(cell, drive, rule)
    expected = [by_hand(cell, drive[n : n + 1]) for n in range(len(drive))]
    stops = [len(residuals) for _, residuals in expected]
    assert len(set(stops)) == len(RATES) and max(stops) == 40
    assert output.stats.sample_steps.tolist() == stops and output.stats.steps == 40
    torch.testing.assert_close(output.stats.residual.tolist(), [residuals[-1] for _, residuals in expected])
    assert output.stats.converged.tolist() == [steps < 40 for steps in stops]
    assert not output.stats.nonfinite_step.any()
    for n, (states, _) in enumerate(expected):
        cut = learning_rule(rule, cell, steps=40)(drive, steps=stops[n])
        for part, single, plain in zip(output.state, states[-1], cut.state, strict=True):
            assert torch.equal(part[n], single[0]) and torch.equal(part[n], plain[n])


def test_other_samples_and_their_order_make_no_difference():
    drive = rates_drive()
    whole = run(RateCell(), drive)
    for chosen in ([2], [4, 0], [3, 1, 0, 4, 2], [1, 1]):
        some = run(RateCell(), drive[chosen])
        assert torch.equal(some.state[0], whole.state[0][chosen])
        assert torch.equal(some.state[1], whole.state[1][chosen])
        assert torch.equal(some.stats.sample_steps, whole.stats.sample_steps[chosen])
        torch.testing.assert_close(some.stats.residual, whole.stats.residual[chosen])


def test_the_batch_shrinks_to_few_sizes():
    cell = RateCell()
    stats = run(cell, rates_drive((0.05,) * 20 + (0.3,) * 9 + (0.9,) * 3)).stats
    steps = stats.sample_steps.tolist()
    assert [len(set(steps[:20])), len(set(steps[20:29])), len(set(steps[29:]))] == [1, 1, 1]
    assert steps[0] < steps[20] < steps[29] == max(steps)
    # A look every second step; a multiple of 8, at most three quarters of the size before.
    ends = [2 * -(-steps[n] // 2) for n in (0, 20, 29)]
    assert cell.seen == [32] * ends[0] + [16] * (ends[1] - ends[0]) + [8] * (ends[2] - ends[1])
    assert stats.steps == ends[2] < 40


def test_recorded_states_of_a_stopped_sample_repeat():
    drive, cell = rates_drive(), RateCell()
    output = run(cell, drive, record=True)
    assert len(output.states) == output.stats.steps and output.states[-1] is output.state
    for n in range(len(drive)):
        states, residuals = by_hand(cell, drive[n : n + 1])
        for t, recorded in enumerate(output.states, start=1):
            for part, truth in zip(recorded, states[min(t, len(residuals))], strict=True):
                assert torch.equal(part[n], truth[0])


def test_a_nonfinite_state_runs_on_and_has_not_converged():
    # Sample 1 overflows at its third step, sample 2 is not finite from the beginning.
    drive = torch.tensor([[0.3, 1.0], [1e25, 1e12], [0.5, torch.nan]])
    cell = RateCell()
    stats = run(cell, drive, steps=9).stats
    assert stats.nonfinite_step.tolist() == [0, 3, 1]
    assert stats.converged.tolist() == [True, False, False]
    assert stats.sample_steps.tolist()[1:] == [9, 9] and stats.sample_steps[0] < 9
    plain = learning_rule("rbp", cell, steps=9)(drive).stats
    assert torch.equal(plain.nonfinite_step, stats.nonfinite_step)


def test_a_state_too_large_for_its_norm_has_not_converged():
    # Grows by a fifth a step; in float32 the square of 2e19 is infinite, that of a fifth of it is not.
    drive = torch.tensor([[1.2, 0.0]])
    stats = run(RateCell(), drive, steps=4, state=(torch.tensor([[1.9e19]]), torch.tensor([[1.6e19]]))).stats
    assert stats.sample_steps.tolist() == [4] and not stats.converged.any() and not stats.nonfinite_step.any()


@pytest.mark.parametrize("norm", ["GN", "LN"])
def test_head_cell_in_float32(norm):
    torch.manual_seed(0)
    cell = GalaHGRUCell(16, norm=norm, timescale=5)
    drive = 2 * torch.randn(6, 16, 9, 9) * torch.linspace(0.1, 2, 6).view(-1, 1, 1, 1)
    output = run(cell, drive, tol=0.05)
    steps = output.stats.sample_steps.tolist()
    assert len(set(steps)) > 1 and max(steps) < 40
    for n, count in enumerate(steps):
        with torch.no_grad():
            plain = learning_rule("crbp", cell, steps=count)(drive[n : n + 1])
        torch.testing.assert_close(output.state[0][n], plain.state[0][0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(output.stats.residual[n], plain.stats.residual[0], rtol=1e-3, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_half_precision_and_autocast_keep_the_states_precision(dtype):
    drive = rates_drive().to(dtype)
    output = run(RateCell(), drive, tol=0.05)
    assert output.state[0].dtype == dtype and output.stats.residual.dtype == torch.float64
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert run(GalaHGRUCell(8), torch.randn(2, 8, 5, 5), tol=0.3).state[0].dtype == torch.float32


def test_empty_batch():
    output = run(RateCell(), torch.zeros(0, 2), record=True)
    assert output.state[0].shape == (0, 1) and len(output.stats.sample_steps) == 0
    assert len(output.states) == output.stats.steps <= 2


def test_only_inference_stops_early():
    cell = TanhCell(rate=0.3)
    recurrence = learning_rule("rbp", cell, steps=12, early_stop=TOL)
    drive = drive_for(cell)
    assert recurrence(drive).stats.sample_steps.tolist() == [12] * 3
    assert recurrence.eval()(drive).stats.sample_steps.tolist() == [12] * 3  # gradients are on
    with torch.no_grad():
        assert recurrence.train()(drive).stats.steps == 12
        assert recurrence.eval()(drive).stats.steps < 12
        recurrence.solver = recurrence.solver.solver
        assert recurrence(drive).stats.steps == 12
        recurrence.solver = EarlyExit(RandomSteps(3, 21), TOL)
        assert recurrence(drive).stats.steps < 12


def test_contradictions_raise_also_for_a_replaced_solver():
    cell, plain = TanhCell(), FixedSteps(3)
    for tol in (0, 1, float("nan"), True, "0.1"):
        with pytest.raises(SettingError, match=rf"EarlyExit: tol is {tol!r}; allowed: .*\(0, 1\)"):
            EarlyExit(plain, tol)
    with pytest.raises(ContradictionError, match="tol is 0.01, but solver is Anderson"):
        EarlyExit(Anderson(), 0.01)
    with pytest.raises(ContradictionError, match="tol is 0.01, but norm is 'BatchNorm2d'"):
        Recurrence(GalaHGRUCell(8, norm="BN"), EarlyExit(plain, 0.01), Unrolled())
    recurrence = Recurrence(GalaHGRUCell(8, norm="BN"), plain, Truncated(3))
    for other, named in ((EarlyExit(plain, 0.01), "norm"), (FixedSteps(2), "truncation"), (Anderson(), "solver")):
        with pytest.raises(ContradictionError, match=named):
            recurrence.solver = other
        assert recurrence.solver is plain
    with pytest.raises(TypeError, match="solver must have .*got 3"):
        Recurrence(cell, 3, Unrolled())


def test_checkpoints_load_with_and_without_early_exit():
    def model(early_stop):
        return learning_rule("crbp_random", TanhCell(), steps=8, early_stop=early_stop)

    plain, early = model(None), model(0.1)
    assert list(early.state_dict()) == list(plain.state_dict()) == ["cell.weight", "cell.input", "solver.draws"]
    for source, target in ((plain, early), (early, plain)):
        source(drive_for(source.cell))
        drawn = source.state_dict()["solver.draws"].item()
        assert drawn > 0 and target.load_state_dict(source.state_dict()).missing_keys == []
        assert target.state_dict()["solver.draws"].item() == drawn
    assert list(learning_rule("rbp", TanhCell(), steps=8, early_stop=0.1).state_dict()) == ["cell.weight", "cell.input"]


def test_a_transposed_solve_takes_all_its_steps():
    drive = drive_for(TanhCell())
    stats = Recurrence(TanhCell(), FixedSteps(9), Implicit(EarlyExit(FixedSteps(7), 0.5)))(drive)
    stats.state[0].sum().backward()
    assert stats.stats.transpose.sample_steps.tolist() == [7] * 3
