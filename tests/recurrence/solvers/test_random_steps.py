"""Random numbers of steps: what is drawn, where, and what a resumed or copied run draws."""

import copy
import math
from collections import Counter
from functools import partial

import pytest
import torch
from helpers.problems import TanhCell, drive_for, iterate
from torch.utils.checkpoint import checkpoint

from crbp_d2.recurrence import RandomSteps, Recurrence, Truncated, learning_rule


def draws(solver, count):
    return [solver.next_steps() for _ in range(count)]


def test_every_number_of_the_range_is_drawn_about_equally_often():
    counts = Counter(draws(RandomSteps(2, 5), 4000))
    # Five standard deviations of a binomial distribution.
    assert set(counts) == {2, 3, 4, 5}
    assert all(abs(count - 1000) < 5 * (4000 * 0.25 * 0.75) ** 0.5 for count in counts.values())
    assert draws(RandomSteps(3, 3), 5) == [3] * 5


def test_a_log_draw_is_short_more_often_than_long():
    low, high, count = 6, 96, 4000
    found = Counter(draws(RandomSteps(low, high, draw="log"), count))
    assert min(found) == low and high - 5 < max(found) <= high
    # 1 + n log-uniform up to 92: n takes the fraction log((n + 2) / (n + 1)) / log(92).
    for minimum, maximum in ((0, 0), (1, 1), (2, 6), (7, 30), (31, 90)):
        wanted = math.log((maximum + 2) / (minimum + 1)) / math.log(high - low + 2)
        seen = sum(found[low + n] for n in range(minimum, maximum + 1)) / count
        assert abs(seen - wanted) < 5 * (wanted * (1 - wanted) / count) ** 0.5, (minimum, maximum)
    assert draws(RandomSteps(3, 3, draw="log"), 5) == [3] * 5
    with pytest.raises(ValueError, match="lgo"):
        RandomSteps(1, 2, draw="lgo")


def test_draws_depend_on_seed_and_place_alone():
    first = RandomSteps(1, 50, seed=1)
    torch.manual_seed(0)
    expected = draws(first, 20)
    torch.manual_seed(5)
    other = RandomSteps(1, 50, seed=1)
    begun = draws(other, 8)
    resumed = RandomSteps(1, 50, seed=1)
    resumed.load_state_dict(copy.deepcopy(other.state_dict()))
    assert begun + draws(resumed, 12) == expected
    assert draws(RandomSteps(1, 50, seed=2), 20) != expected


@pytest.mark.parametrize("rule", ["progressive", "crbp_random"])
def test_training_draws_and_evaluation_runs_a_fixed_number(rule):
    cell = TanhCell()
    drive = drive_for(cell)
    recurrence = learning_rule(rule, cell, steps=12, truncation=6)
    taken = [recurrence(drive).stats.steps for _ in range(30)]
    assert taken == draws(RandomSteps(6, 18, 12), 30) and len(set(taken)) > 5
    torch.testing.assert_close(recurrence(drive, steps=9).state[0], iterate(cell, drive, 9)[0], rtol=0, atol=1e-15)
    with torch.no_grad():
        assert recurrence.eval()(drive).stats.steps == 12
    assert recurrence(drive).stats.steps == 12 and recurrence.solver.draws.item() == 30
    # A solver that is replaced does not draw in evaluation either.
    recurrence.solver = RandomSteps(1, 50, 12)
    assert recurrence(drive).stats.steps == 12 and not recurrence.solver.draws
    assert list(recurrence.state_dict()) == ["cell.weight", "cell.input", "solver.draws"]


def test_states_held_are_those_of_the_recorded_steps():
    seen = []

    class Watching(TanhCell):
        def forward(self, drive, state):
            seen.append(torch.is_grad_enabled())
            return super().forward(drive, state)

    cell = Watching()
    stats = Recurrence(cell, RandomSteps(4, 30), Truncated(4))(drive_for(cell)).stats
    assert seen == [False] * (stats.steps - 4) + [True] * 4


@pytest.mark.parametrize("low,high,named", [(0, 3, "low"), (4, 3, "low must be at most high"), (1, 2.5, "high")])
def test_ranges_that_are_none_raise(low, high, named):
    with pytest.raises(ValueError, match=named):
        RandomSteps(low, high)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("rule", ["progressive", "crbp_random", "progressive_mixed"])
def test_checkpointing_repeats_the_steps_of_its_run(rule, reentrant):
    cell = TanhCell(rate=0.95)
    recurrence, plain = (learning_rule(rule, cell, steps=6) for _ in range(2))

    def loss(run, drive):
        output = run(drive)
        return output.loss(lambda h: h.square().sum()) + output.penalty

    def gradients(value):
        cell.zero_grad()
        value.backward()
        return [parameter.grad for parameter in cell.parameters()]

    drive = drive_for(cell).requires_grad_()
    for _ in range(8):
        found = gradients(checkpoint(partial(loss, recurrence), drive, use_reentrant=reentrant))
        for ours, truth in zip(found, gradients(loss(plain, drive)), strict=True):
            torch.testing.assert_close(ours, truth, rtol=0, atol=1e-12)
    assert recurrence.solver.draws == plain.solver.draws == 8
