"""The learning rules: each a row that says which solver, gradient, penalty and supervision go together."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from torch import nn

from .gradients import Implicit, Unrolled
from .penalties import LipschitzPenalty
from .recurrence import Recurrence
from .solvers import FixedSteps
from .transpose import NeumannSeries


@dataclass(frozen=True)
class RuleSettings:
    """The numbers a rule may use; a rule ignores those it has no use for.

    steps: forward steps. num_terms, neumann_tol: see NeumannSeries. bound, reduction: see LipschitzPenalty.
    """

    steps: int
    num_terms: int = 15
    neumann_tol: float = 0.0
    bound: float = 0.9
    reduction: str = "mean"


Part = Callable[[RuleSettings], Any]


@dataclass(frozen=True)
class Rule:
    """One row: functions from the settings to the parts of a Recurrence."""

    gradient: Part
    solver: Part = lambda s: FixedSteps(s.steps)
    penalty: Part = lambda s: None
    supervision: str = "last"


def _implicit(settings: RuleSettings) -> Implicit:
    return Implicit(NeumannSeries(settings.num_terms, settings.neumann_tol))


def _unrolled(settings: RuleSettings) -> Unrolled:
    return Unrolled()


def _lipschitz(settings: RuleSettings) -> LipschitzPenalty:
    return LipschitzPenalty(settings.bound, settings.reduction)


RULES: dict[str, Rule] = {
    "bptt": Rule(gradient=_unrolled),
    "cbptt": Rule(gradient=_unrolled, penalty=_lipschitz),
    "rbp": Rule(gradient=_implicit),
    "crbp": Rule(gradient=_implicit, penalty=_lipschitz),
}


def learning_rule(name: str, cell: nn.Module, steps: int, **settings) -> Recurrence:
    """The Recurrence of a rule by its name in RULES.

    Args:
        name: key of RULES.
        cell: see Recurrence.
        steps, settings: see RuleSettings.

    Raises:
        ValueError: an unknown name, or a value its part refuses.
        TypeError: an unknown setting.
    """
    if name not in RULES:
        raise ValueError(f"unknown learning rule {name!r}; known: {', '.join(sorted(RULES))}")
    known = [f.name for f in fields(RuleSettings)]
    for setting in settings:
        if setting not in known:
            raise TypeError(f"learning_rule: unknown setting {setting!r}; known: {', '.join(known)}")
    rule, values = RULES[name], RuleSettings(steps, **settings)
    return Recurrence(cell, rule.solver(values), rule.gradient(values), rule.penalty(values), rule.supervision)
