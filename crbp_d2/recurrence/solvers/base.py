"""What solvers share: the transposed problem's step, and the report of one that did not converge.

The interface of a solver is `Solver` in interfaces.py. Gradients are none of a solver's business.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from crbp_d2.utils.errors import check_number, check_whole

from ..interfaces import Cell, Solver, TransposeSolver
from ..solution import SolveStats
from ..state import State, add

# Residual that counts as converged where nothing else is said.
CONVERGED = 1e-3


@dataclass
class AffineStep:
    """The step u -> J^T u + g of the transposed problem; `linear` maps a state v to J^T v, `offset` is g.

    It belongs to a backward pass, so it is never one of inference.
    """

    linear: Callable[[State], State]
    offset: State
    inference: bool = False

    def __call__(self, u: State) -> State:
        return add(self.linear(u), self.offset)

    def subset(self, samples: Tensor) -> AffineStep:
        """The step of some samples alone, by their indices; the others are zero."""

        def linear(v: State) -> State:
            whole = tuple(torch.zeros_like(part) for part in self.offset)
            padded = tuple(zero.index_copy(0, samples, part) for zero, part in zip(whole, v, strict=True))
            return tuple(part[samples] for part in self.linear(padded))

        return AffineStep(linear, tuple(part[samples] for part in self.offset), self.inference)


class AnyCell:
    """The `check` of a solver that runs the steps of every cell."""

    def check(self, cell: Cell) -> None:
        """Accept it."""


class UnconvergedWarning(UserWarning):
    """A solver that stops at a tolerance used up its steps before it got there."""


def warn_unconverged(solver: TransposeSolver | Solver, stats: SolveStats, what: str) -> bool:
    """Warn if `solver` was meant to reach a tolerance and some sample did not; returns whether it warned.

    Args:
        what: the solve, for the message.
    """
    if not solver.stops_at_tol or bool(stats.converged.all()):
        return False
    missed = ~stats.converged
    warnings.warn(
        f"the {what} of {int(missed.sum())} of {len(missed)} samples did not converge: {solver!r} left a residual of "
        f"{stats.residual[missed].max().item():.3g} after {stats.steps} steps. This warning comes once; every run "
        "reports it in its statistics",
        UnconvergedWarning,
        stacklevel=3,
    )
    return True


def check_budget(owner: str, tol: float, **counts: int) -> None:
    """Check the numbers that every solver has: whole ones from 1, and `tol` in (0, 1).

    Raises:
        SettingError: names the solver, the setting and its value.
    """
    check_whole(owner, 1, **counts)
    check_number(owner, "(0, 1)", tol=tol)
