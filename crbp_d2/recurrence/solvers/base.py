"""The transposed problem's step, and the warning of a solver that did not converge."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

from crbp_d2.utils.errors import check_number, check_whole

from ..interfaces import Cell, Solver, SolveStats, TransposeSolver
from ..state import State, add

# Default residual that counts as converged.
CONVERGED = 1e-3


@dataclass
class AffineStep:
    """The step u -> J^T u + g of the transposed problem; `linear` maps a state v to J^T v, `offset` is g.

    A backward pass is never one of inference.
    """

    linear: Callable[[State], State]
    offset: State
    inference: bool = False

    def __call__(self, u: State) -> State:
        return add(self.linear(u), self.offset)


class AnyCell:
    """Base of a solver that runs every cell."""

    def check(self, cell: Cell) -> None:
        """Accept the cell."""


class UnconvergedWarning(UserWarning):
    """A solver that stops at a tolerance used up its steps before it got there."""


def warn_unconverged(solver: TransposeSolver | Solver, stats: SolveStats, what: str) -> bool:
    """Warn if some sample did not reach the tolerance at which `solver` stops; returns whether it warned.

    Args:
        what: the solve, for the message.
    """
    if stats.reached or bool(stats.converged.all()):
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
