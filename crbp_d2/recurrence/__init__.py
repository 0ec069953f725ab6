"""Recurrences trained at their fixed point; pure torch."""

from .gradients import Implicit, Unrolled
from .penalties import LipschitzPenalty
from .recurrence import Recurrence, RecurrenceOutput
from .rules import RULES, Rule, RuleSettings, learning_rule
from .solvers import FixedSteps, SolveStats
from .transpose import NeumannSeries, TransposeStats

__all__ = [
    "RULES",
    "FixedSteps",
    "Implicit",
    "LipschitzPenalty",
    "NeumannSeries",
    "Recurrence",
    "RecurrenceOutput",
    "Rule",
    "RuleSettings",
    "SolveStats",
    "TransposeStats",
    "Unrolled",
    "learning_rule",
]
