"""The joint of cell, solver, gradient, penalty and supervision."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from crbp_d2.layers.cache import solve_scope
from crbp_d2.utils.errors import check_whole
from crbp_d2.utils.tracing import is_exported, refuse_transform

from .cell_step import CellStep, begin
from .interfaces import Cell, Gradient, Penalty, Solver, Visit
from .solution import SolveStats
from .solvers.base import warn_unconverged
from .state import State
from .supervision import Supervision, check_supervision, read_after


@dataclass
class RecurrenceOutput:
    """What a run returns.

    state: the last state (of a solver that stops at a tolerance: the step of the best state it found),
        differentiable by the chosen gradient.
    penalty: unweighted scalar; 0 with a graph where the recurrence has no penalty. In training mode it has its value
        with gradients off, too (a validation loss); in evaluation mode it is then 0.
    stats: steps, residual, converged; after the backward pass also the backward solve.
    states: the state after every step, with supervision "every" or record=True, else None. It ends where the
        last sample stopped.
    supervised: the states whose losses are trained on, each after its weight; the weights sum to 1.
    """

    state: State
    penalty: Tensor
    stats: SolveStats
    states: list[State] | None = None
    supervised: list[tuple[float, State]] = field(default_factory=list)

    def loss(self, of: Callable[[Tensor], Tensor]) -> Tensor:
        """The training loss, where `of` gives that of the first tensor of one state."""
        first, *others = (of(state[0]) if weight == 1 else weight * of(state[0]) for weight, state in self.supervised)
        return sum(others, first)

    def after(self, steps: int) -> State:
        """The recorded state after `steps` steps; a solver that stops at a tolerance stays where it stopped.

        Raises:
            SettingError: steps < 1.
            ValueError: the states were not recorded.
        """
        check_whole("RecurrenceOutput.after", steps=steps)
        if self.states is None:
            raise ValueError("RecurrenceOutput: no states were recorded; run the recurrence with record=True")
        return self.states[min(steps, len(self.states)) - 1]


class Recurrence(nn.Module):
    """h_{t+1} = cell(drive, h_t), run and differentiated as its parts say; interfaces.py says what these are.

    Args:
        cell: module with `forward(drive, state) -> state` and `initial_state(drive) -> state`.
        solver: how steps are run: FixedSteps(20), Anderson(...), EarlyExit(FixedSteps(20), tol). The attribute may be
            replaced at any time.
        gradient: how the last state is differentiated: Unrolled(), Truncated(3), Implicit(...), Chunked(Implicit(...)).
        penalty: LipschitzPenalty(...), or None.
        supervision: which states a loss is read from: "last", "every", or Mixed(...).

    Raises:
        TypeError: a cell, solver, gradient or penalty that is none.
        SettingError: another supervision.
        ContradictionError: parts that contradict each other.
    """

    def __init__(
        self,
        cell: Cell,
        solver: Solver,
        gradient: Gradient,
        penalty: Penalty | None = None,
        supervision: Supervision = "last",
    ):
        super().__init__()
        check_supervision(supervision)
        if not isinstance(gradient, Gradient):
            raise TypeError(f"Recurrence: gradient must have the methods `check` and `run`, got {gradient!r}")
        if not callable(cell) or not hasattr(cell, "initial_state"):
            raise TypeError(f"Recurrence: cell must have the methods `forward` and `initial_state`, got {cell!r}")
        if penalty is not None and not callable(penalty):
            raise TypeError(f"Recurrence: penalty must be a function of the last two states, or None, got {penalty!r}")
        self.cell: Any = cell
        self.gradient = gradient
        self.penalty = penalty
        self.supervision = supervision
        self.solver = solver
        self.last_stats: SolveStats | None = None
        self._warned = False

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "solver":
            self._check_solver(value)
            # Solvers with buffers are modules, others are not; torch lets only another module replace one.
            self._modules.pop(name, None)
        super().__setattr__(name, value)

    def _check_solver(self, solver: Solver) -> None:
        if not isinstance(solver, Solver):
            raise TypeError(
                "Recurrence: solver must have the methods `solve`, `next_steps` and `check` and the attributes "
                f"`steps`, `tol` and `stops_at_tol`, got {solver!r}"
            )
        solver.check(self.cell)
        self.gradient.check(self.cell, solver, self.penalty, self.supervision)

    @solve_scope()
    def forward(
        self, drive: Tensor, state: State | None = None, steps: int | None = None, record: bool | Visit = False
    ) -> RecurrenceOutput:
        """Run the recurrence.

        Args:
            drive: N x C x H x W, the same at every step.
            state: where to start; default the cell's initial state.
            steps: evaluations of the cell (at most, for a solver that stops at a tolerance); default the
                solver's own number.
            record: keep the state after every step; a function sees each of these states instead.

        Raises:
            ValueError: steps < 1; a drive or state of another shape than the cell's; a state that the cell
                answers with one of another shape.

        Warns:
            UnconvergedWarning: once, if a solver that stops at a tolerance does not get there.
        """
        exported = is_exported(drive)
        if self.training and self.penalty is not None and not torch.is_grad_enabled() and not exported:
            return self._measured(drive, state, steps, record)
        # What is exported is inference.
        with torch.set_grad_enabled(torch.is_grad_enabled() and not exported):
            return self._run(drive, state, steps, record)

    def _measured(
        self, drive: Tensor, state: State | None, steps: int | None, record: bool | Visit
    ) -> RecurrenceOutput:
        """A training pass without gradients, of which losses are wanted: the penalty needs the last step's graph."""
        refuse_transform(
            (drive, *(state if isinstance(state, tuple | list) else ())),
            "the penalty of a training pass without gradients",
            "turn gradients on, or call eval()",
        )
        # Without gradients a random number of steps is fixed.
        steps = self.solver.next_steps() if steps is None else steps
        with torch.inference_mode(False), torch.enable_grad():
            output = self._run(drive, state, steps, record)
        states = None if output.states is None else [_detached(h) for h in output.states]
        last = states[-1] if states else _detached(output.state)
        supervised = [(weight, _detached(h)) for weight, h in output.supervised]
        return RecurrenceOutput(last, output.penalty.detach(), output.stats, states, supervised)

    def _run(self, drive: Tensor, state: State | None, steps: int | None, record: bool | Visit) -> RecurrenceOutput:
        reads = [(steps, 1.0)]
        if steps is None:
            steps = self.solver.next_steps()
            reads = read_after(self.supervision, steps, self.solver.steps)
        check_whole("Recurrence", steps=steps)
        differentiated = torch.is_grad_enabled()
        given = state
        drive, state = begin(self.cell, drive, state)
        inference = not (self.training or differentiated)
        step = CellStep(self.cell, drive, inference, initial=state if given is None else None)
        # The mean over no samples is none.
        penalty = self.penalty if differentiated and len(drive) else None
        states: list[State] | None = [] if record is True or self.supervision == "every" else None
        visit = None if states is None else states.append
        if callable(record):
            visit = record if visit is None else _both(visit, record)
        first, *others = reads
        run = self.gradient.run(step, state, self.solver, first[0], None if others else penalty, visit)
        supervised = [(first[1], run.state)]
        for (before, _), (after, weight) in pairwise(reads):
            start = tuple(part.detach() for part in run.state)
            earlier = run.stats
            run = self.gradient.run(step, start, self.solver, after - before, penalty, visit)
            run.stats = run.stats.after(earlier)
            supervised.append((weight, run.state))
        if states is not None:
            states[-1] = run.state
            if self.supervision == "every":
                supervised = [(1 / len(states), state) for state in states]
        self._warned = self._warned or warn_unconverged(self.solver, run.stats, "forward run")
        if not is_exported(drive):
            self.last_stats = run.stats
        penalty_value = _zero(run.state) if run.penalty is None else run.penalty
        return RecurrenceOutput(run.state, penalty_value, run.stats, states, supervised)

    def __getstate__(self) -> dict[str, Any]:
        """Without the statistics of the last run, whose callback belongs to the process."""
        return {**self.__dict__, "last_stats": None}

    def extra_repr(self) -> str:
        penalty = f", penalty={self.penalty!r}" if self.penalty is not None else ""
        return f"solver={self.solver!r}, gradient={self.gradient!r}{penalty}, supervision={self.supervision!r}"


def _both(first: Visit, second: Visit) -> Visit:
    def visit(state: State) -> None:
        first(state)
        second(state)

    return visit


def _detached(state: State) -> State:
    return tuple(part.detach() for part in state)


def _zero(state: State) -> Tensor:
    """A zero that is connected to the graph and stays zero when the state is not finite."""
    return state[0].flatten()[:0].sum()
