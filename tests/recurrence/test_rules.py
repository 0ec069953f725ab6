"""Every row of the table of rules, in float64, against truth that does not use the package."""

import pytest
import torch
from helpers.fixed_point import at_fixed_point, damped_sum
from helpers.problems import TanhCell, flat, gradients, iterate, loss_of

from crbp_d2.recurrence import (
    RULES,
    FixedSteps,
    Implicit,
    LipschitzPenalty,
    Mixed,
    NeumannSeries,
    RandomSteps,
    Recurrence,
    Truncated,
    learning_rule,
)
from crbp_d2.utils.errors import SettingError

EXACT = {"rtol": 0, "atol": 1e-9}
SOLVED = {"num_terms": 400, "tol": 1e-13}


def unrolled(cell, drive, steps, kept, every=False):
    """Plain autograd through the last `kept` of `steps` steps."""
    state, losses = cell.initial_state(drive), []
    for t in range(steps):
        if t == steps - kept:
            state = tuple(part.detach() for part in state)
        state = cell(drive, state)
        losses.append(loss_of(state))
    return gradients(cell, drive, sum(losses) / steps if every else losses[-1])


def mixed(cell, drive, fixed, drawn, kept, fixed_weight):
    """Plain autograd through the last `kept` steps before each of two ends of one run, never across the first."""
    if drawn == fixed:
        return unrolled(cell, drive, fixed, kept)
    loss, state = 0, cell.initial_state(drive)
    first, last = sorted((fixed, drawn))
    for t in range(1, last + 1):
        if t in (first - kept + 1, max(first, last - kept) + 1):
            state = tuple(part.detach() for part in state)
        state = cell(drive, state)
        if t == fixed:
            loss = loss + fixed_weight * loss_of(state)
        if t == drawn:
            loss = loss + (1 - fixed_weight) * loss_of(state)
    return gradients(cell, drive, loss)


STEPS = {
    "bptt": 7,
    "cbptt": 7,
    "bptt_every_step": 7,
    "tbptt": 7,
    "rbp": 400,
    "crbp": 400,
    "crbp_random": 800,
    "deq": 400,
    "progressive": 7,
    "progressive_far": 7,
    "progressive_mixed": 7,
    "phantom": 400,
}
TRUTH = {
    "bptt": lambda cell, drive: unrolled(cell, drive, 7, 7),
    "cbptt": lambda cell, drive: unrolled(cell, drive, 7, 7),
    "bptt_every_step": lambda cell, drive: unrolled(cell, drive, 7, 7, every=True),
    "tbptt": lambda cell, drive: unrolled(cell, drive, 7, 3),
    "rbp": at_fixed_point,
    "crbp": at_fixed_point,
    "deq": at_fixed_point,
    "crbp_random": at_fixed_point,
    # The first draw of 3 to 11 steps.
    "progressive": lambda cell, drive: unrolled(cell, drive, RandomSteps(3, 11, 7).next_steps(), 3),
    "progressive_far": lambda cell, drive: unrolled(cell, drive, RandomSteps(3, 56, 7, draw="log").next_steps(), 3),
    "progressive_mixed": lambda cell, drive: mixed(
        cell, drive, 7, RandomSteps(3, 56, 7, draw="log").next_steps(), 3, 0.5
    ),
    "phantom": lambda cell, drive: damped_sum(cell, drive, 3, 0.5),
}


@pytest.mark.parametrize("rule", RULES)
def test_gradient_is_the_one_the_rule_stands_for(problem, rule):
    cell, drive = problem
    output = learning_rule(rule, cell, steps=STEPS[rule], **SOLVED)(drive)
    loss = sum(weight * loss_of(state) for weight, state in output.supervised)
    for ours, truth in zip(gradients(cell, drive, loss), TRUTH[rule](cell, drive), strict=True):
        assert truth.abs().max() > 1e-3
        torch.testing.assert_close(ours, truth, **EXACT)


@pytest.mark.parametrize("truncation", [1, 2, 5, 6])
def test_truncation_keeps_exactly_the_last_steps(problem, truncation):
    cell, drive = problem
    output = learning_rule("tbptt", cell, steps=6, truncation=truncation)(drive)
    assert output.stats.steps == 6
    ours = gradients(cell, drive, loss_of(output.state))
    for a, truth in zip(ours, unrolled(cell, drive, 6, truncation), strict=True):
        torch.testing.assert_close(a, truth, **EXACT)


def test_penalty_under_truncation_reaches_the_kept_steps(problem):
    cell, drive = problem
    with torch.no_grad():
        cell.weight.mul_(2.5)
    penalty = Recurrence(cell, FixedSteps(5), Truncated(1), LipschitzPenalty(bound=0.1))(drive).penalty
    reference = learning_rule("crbp", cell, steps=5, bound=0.1)(drive).penalty
    assert penalty > 1e-3
    torch.testing.assert_close(penalty, reference, **EXACT)
    for a, b in zip(gradients(cell, drive, penalty), gradients(cell, drive, reference), strict=True):
        torch.testing.assert_close(a, b, **EXACT)


@pytest.mark.parametrize("low, high", [(2, 3), (5, 7), (7, 7), (8, 10), (30, 40)])
def test_mixed_losses_are_those_of_one_run(problem, low, high):
    """Also where the drawn number is below the fixed one, or so near that there are fewer steps than `kept` between."""
    cell, drive = problem
    recurrence = Recurrence(cell, RandomSteps(low, high, steps=7), Truncated(4), supervision=Mixed(0.3))
    drawn = RandomSteps(low, high, steps=7).next_steps()
    output = recurrence(drive, record=True)
    assert output.stats.steps == len(output.states) == max(7, drawn)
    for t, state in enumerate(output.states, start=1):
        torch.testing.assert_close(flat(state), flat(iterate(cell, drive, t)), **EXACT)
    firsts = sum(weight * state[0].sin().sum() for weight, state in output.supervised)
    torch.testing.assert_close(output.loss(lambda h: h.sin().sum()), firsts, **EXACT)
    loss = sum(weight * loss_of(state) for weight, state in output.supervised)
    for ours, truth in zip(gradients(cell, drive, loss), mixed(cell, drive, 7, drawn, 4, 0.3), strict=True):
        torch.testing.assert_close(ours, truth, **EXACT)
    # Evaluation and a given number of steps read only the last state.
    for read in (recurrence(drive, steps=9), recurrence.eval()(drive)):
        assert [weight for weight, _ in read.supervised] == [1.0]


@pytest.mark.parametrize("weight", [0.0, 1.0, -0.1, float("nan"), True])
def test_weights_that_leave_one_loss_out_raise(weight):
    with pytest.raises(SettingError, match="fixed_weight"):
        Mixed(weight)
    with pytest.raises(SettingError, match="fixed_weight"):
        learning_rule("progressive_mixed", TanhCell(), steps=4, fixed_weight=weight)


@pytest.mark.parametrize("rule", RULES)
def test_gradient_of_a_sample_does_not_depend_on_a_slow_sample(rule):
    """The other needs many more steps and terms than the sample."""
    cell = TanhCell(rate=0.95)
    fast, slow = 5 * torch.ones(1, 5, dtype=torch.float64), 1e-3 * torch.ones(1, 5, dtype=torch.float64)
    recurrence = learning_rule(rule, cell, steps=60, tol=1e-6, neumann_tol=1e-6, num_terms=60)

    def gradient(drive):
        drive = drive.requires_grad_()
        return torch.autograd.grad(recurrence(drive, steps=60).state[0][0].sum(), drive)[0][0]

    single, batch = gradient(fast.clone()), gradient(torch.cat([fast, slow]))
    torch.testing.assert_close(single, batch, rtol=1e-12, atol=0)
    if rule == "deq":
        stats = recurrence(torch.cat([fast, slow])).stats
        assert stats.sample_steps[0] < stats.sample_steps[1]


def test_a_row_of_ones_own():
    RULES.add("one_step", lambda cell, steps: Recurrence(cell, FixedSteps(steps), Implicit(NeumannSeries(0))))
    try:
        recurrence = learning_rule("one_step", TanhCell(), steps=4)
        assert recurrence.gradient.transpose.num_terms == 0
        with pytest.raises(ValueError, match="a rule named 'one_step' exists already"):
            RULES.add("one_step", RULES["bptt"])
    finally:
        del RULES["one_step"]


def test_contradictions_say_what_goes_together():
    cell = TanhCell()
    with pytest.raises(ValueError, match=r"truncation is 5, but steps is 4"):
        learning_rule("tbptt", cell, steps=4, truncation=5)
    with pytest.raises(ValueError, match="truncation is 0.*whole numbers from 1"):
        learning_rule("tbptt", cell, steps=4, truncation=0)
    with pytest.raises(ValueError, match=r"supervision is 'every'.*Truncated\(2\)"):
        Recurrence(cell, FixedSteps(4), Truncated(2), supervision="every")
    with pytest.raises(ValueError, match=r"solver is Broyden.*Truncated\(3\)"):
        learning_rule("tbptt", cell, steps=4, solver="Broyden")
    with pytest.raises(TypeError, match="transpose must be a solver, got int"):
        Implicit(15)
