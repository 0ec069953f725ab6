"""The five arguments of a recurrence and the step they share, as protocols.

What has these methods and attributes is such a part; nothing needs to inherit. N: samples of the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from torch import Tensor

from .solution import Solution, SolveStats
from .state import State
from .supervision import Supervision

if TYPE_CHECKING:
    from .cell_step import CellStep
    from .solvers.base import AffineStep

# Sees the state after every step of a run.
Visit = Callable[[State], None]


@runtime_checkable
class Cell(Protocol):
    """What one step computes: a torch module. If it has an attribute `channels`, drives are N x channels x ...."""

    def initial_state(self, drive: Tensor) -> State:
        """The state that a run starts from."""
        ...

    def __call__(self, drive: Tensor, state: State, /) -> State:
        """The next state, of the shapes of `state`."""
        ...


class Step(Protocol):
    """A map from one state of N samples to the next.

    inference: whether the run is neither one of training nor differentiated, so that samples may end it early.
    """

    @property
    def inference(self) -> bool: ...

    def __call__(self, state: State, /) -> State: ...

    def subset(self, samples: Tensor) -> Step:
        """The step of some samples alone, by their indices."""
        ...


@runtime_checkable
class TransposeSolver(Protocol):
    """How the transposed problem u = J^T u + g of an Implicit gradient is solved.

    stops_at_tol: whether a sample's run is meant to end at a tolerance. If not, all take the same steps.
    """

    @property
    def stops_at_tol(self) -> bool: ...

    def solve(
        self, step: AffineStep, state: State, steps: int | None = None, visit: Visit | None = None
    ) -> Solution: ...


@runtime_checkable
class Solver(Protocol):
    """How steps are run, forward and (by the same call, with an affine step) in the transposed problem.

    steps: evaluations (at most) of a run in inference that names none.
    tol: residual within which a sample counts as converged.
    stops_at_tol: whether its run ends there. If not, the solver is plain iteration, which can be unrolled.
    """

    @property
    def steps(self) -> int: ...

    @property
    def tol(self) -> float: ...

    @property
    def stops_at_tol(self) -> bool: ...

    def next_steps(self) -> int:
        """Evaluations of the run that is about to begin and names none; `steps`, but where they are drawn."""
        ...

    def solve(self, step: Step, state: State, steps: int | None = None, visit: Visit | None = None) -> Solution:
        """At most `steps` (default: the solver's own; 0 is allowed) evaluations of `step` from `state`."""
        ...

    def check(self, cell: Cell) -> None:
        """Raise a ContradictionError if steps of this cell cannot be run in this way."""
        ...


@runtime_checkable
class Penalty(Protocol):
    """What is added to the loss, as a function of the last step.

    reduction: "mean" or "sum" over the samples.
    """

    @property
    def reduction(self) -> str: ...

    def __call__(self, previous: State, state: State) -> Tensor:
        """A scalar. `state` was computed from `previous` with a graph."""
        ...


@runtime_checkable
class Gradient(Protocol):
    """How the result of a run is differentiated."""

    def check(self, cell: Cell, solver: Solver, penalty: Penalty | None, supervision: Supervision) -> None:
        """Raise a ContradictionError if the other parts do not go with this gradient."""
        ...

    def run(
        self,
        step: CellStep,
        state: State,
        solver: Solver,
        steps: int,
        penalty: Penalty | None = None,
        visit: Visit | None = None,
    ) -> Trajectory:
        """Run `steps` steps, at least 1, from `state`; without a graph where gradients are off.

        Args:
            penalty: to be computed with a graph; None: none is wanted.
            visit: sees all states.
        """
        ...


@dataclass
class Trajectory:
    """A finished run.

    state: the last state, differentiable by the gradient.
    stats: of its solve; the gradient reports the backward solve there.
    penalty: a scalar, where one was wanted.
    """

    state: State
    stats: SolveStats
    penalty: Tensor | None = None
