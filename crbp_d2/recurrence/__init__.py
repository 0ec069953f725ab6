"""Recurrences trained at their fixed point; pure torch."""

from crbp_d2.utils.table import Table

from .diagnostics import contraction, lipschitz_coefficient, residuals, spectral_radius
from .gradients.implicit import Implicit
from .gradients.phantom import Phantom
from .gradients.unrolled import Truncated, Unrolled
from .interfaces import Cell, Gradient, Penalty, Run, Solution, Solver, SolveStats, Step, TransposeSolver
from .penalties import ContractionPenalty, LipschitzPenalty
from .recurrence import Recurrence, RecurrenceOutput
from .rules import PENALTIES, RULES, SOLVERS, learning_rule
from .solvers.anderson import Anderson
from .solvers.base import AffineStep, UnconvergedWarning
from .solvers.broyden import Broyden
from .solvers.early_exit import EarlyExit
from .solvers.fixed_steps import FixedSteps
from .solvers.neumann import NeumannSeries
from .solvers.random_steps import RandomSteps
from .supervision import Mixed

__all__ = [
    "PENALTIES",
    "RULES",
    "SOLVERS",
    "AffineStep",
    "Anderson",
    "Broyden",
    "Cell",
    "ContractionPenalty",
    "EarlyExit",
    "FixedSteps",
    "Gradient",
    "Implicit",
    "LipschitzPenalty",
    "Mixed",
    "NeumannSeries",
    "Penalty",
    "Phantom",
    "RandomSteps",
    "Recurrence",
    "RecurrenceOutput",
    "Run",
    "Solution",
    "SolveStats",
    "Solver",
    "Step",
    "Table",
    "TransposeSolver",
    "Truncated",
    "UnconvergedWarning",
    "Unrolled",
    "contraction",
    "learning_rule",
    "lipschitz_coefficient",
    "residuals",
    "spectral_radius",
]
