"""Recurrences trained at their fixed point; pure torch."""

from .diagnostics import contraction, lipschitz_coefficient, residuals, spectral_radius
from .gradients import Implicit, Truncated, Unrolled
from .penalties import ContractionPenalty, LipschitzPenalty
from .recurrence import Recurrence, RecurrenceOutput
from .registry import Table
from .rules import PENALTIES, RULES, SOLVERS, Rule, RuleSettings, learning_rule
from .solvers.anderson import Anderson
from .solvers.base import AffineStep, Solution, SolveStats, UnconvergedWarning
from .solvers.broyden import Broyden
from .solvers.fixed_steps import FixedSteps
from .solvers.neumann import NeumannSeries
from .solvers.random_steps import RandomSteps

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
    "RandomSteps",
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
