"""Recurrences trained at their fixed point; pure torch."""

from .anderson import Anderson
from .broyden import Broyden
from .diagnostics import contraction, lipschitz_coefficient, residuals, spectral_radius
from .gradients import Implicit, Truncated, Unrolled
from .penalties import ContractionPenalty, LipschitzPenalty
from .recurrence import Recurrence, RecurrenceOutput
from .rules import PENALTIES, RULES, SOLVERS, Rule, RuleSettings, learning_rule
from .solvers import AffineStep, FixedSteps, Solution, SolveStats, UnconvergedWarning
from .table import Table
from .transpose import NeumannSeries

__all__ = [
    "PENALTIES",
    "RULES",
    "SOLVERS",
    "AffineStep",
    "Anderson",
    "Broyden",
    "ContractionPenalty",
    "FixedSteps",
    "Implicit",
    "LipschitzPenalty",
    "NeumannSeries",
    "Recurrence",
    "RecurrenceOutput",
    "Rule",
    "RuleSettings",
    "Solution",
    "SolveStats",
    "Table",
    "Truncated",
    "UnconvergedWarning",
    "Unrolled",
    "contraction",
    "learning_rule",
    "lipschitz_coefficient",
    "residuals",
    "spectral_radius",
]
