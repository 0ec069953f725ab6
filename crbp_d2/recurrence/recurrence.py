"""The joint of cell, solver, gradient, penalty and supervision."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from crbp_d2.layers.cache import solve_scope
from crbp_d2.utils.errors import check_whole
from crbp_d2.utils.tracing import is_exported, refuse_transform

from .cell_step import CellStep, begin, requires_gradient
from .interfaces import Cell, Gradient, Penalty, Run, Solver, SolveStats, Visit
from .solvers.base import warn_unconverged
from .state import State
from .supervision import Mixed, Supervision, check_supervision


@dataclass
class RecurrenceOutput:
    """The result of a run.

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

    def detached(self) -> "RecurrenceOutput":
        """The same values without their graph."""

        def detached(state: State) -> State:
            return tuple(part.detach() for part in state)

        states = None if self.states is None else [detached(state) for state in self.states]
        supervised = [(weight, detached(state)) for weight, state in self.supervised]
        last = states[-1] if states else detached(self.state)
        return RecurrenceOutput(last, self.penalty.detach(), self.stats, states, supervised)

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
    """h_{t+1} = cell(drive, h_t), run and differentiated by its parts; interfaces.py describes these.

    Args:
        cell: module with `forward(drive, state) -> state` and `initial_state(drive) -> state`.
        solver: how steps are run: FixedSteps(20), Anderson(...), EarlyExit(FixedSteps(20), tol). The attribute may be
            replaced at any time.
        gradient: how the last state is differentiated: Unrolled(), Truncated(3), Implicit(...), Phantom(...).
        penalty: LipschitzPenalty(...), or None.
        supervision: which states a loss is read from: "last", "every", or Mixed(...).

    Raises:
        TypeError: an argument that does not implement its protocol.
        SettingError: an unknown supervision.
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

    # torch.compile calls the run as it is, instead of breaking its graph within the steps; CELL.COMPILE compiles those.
    @torch.compiler.disable
    @solve_scope()
    def forward(
        self, drive: Tensor, state: State | None = None, steps: int | None = None, record: bool | Visit = False
    ) -> RecurrenceOutput:
        """Run the recurrence.

        Args:
            drive: N x C x H x W, the same at every step.
            state: where to start; default: the cell's initial state.
            steps: evaluations of the cell (at most, for a solver that stops at a tolerance); default: the
                solver's own number.
            record: keep the state after every step; a function is called with each of these states instead.

        Raises:
            ValueError: steps < 1; a drive or state of another shape than the cell's; a cell that returns a state of
                another shape than it was given.

        Warns:
            UnconvergedWarning: once, if a solver that stops at a tolerance does not get there.
        """
        exported = is_exported(drive)
        if steps is None:
            reads = self._reads()
        else:
            check_whole("Recurrence", steps=steps)
            reads = [(steps, 1.0)]
        given = (drive, *(state if isinstance(state, tuple | list) else ()))
        # What is exported is inference; a frozen recurrence costs as much.
        if torch.is_grad_enabled() and not exported and requires_gradient(self.cell, given):
            return self._run(drive, state, reads, record)
        if exported or not self.training or self.penalty is None:
            with torch.no_grad():
                return self._run(drive, state, reads, record)
        # A training pass without gradients still has losses, and the penalty needs the last step's graph.
        refuse_transform(given, "the penalty of a training pass without gradients", "turn gradients on, or call eval()")
        with torch.inference_mode(False), torch.enable_grad():
            return self._run(drive, state, reads, record).detached()

    def _reads(self) -> list[tuple[int, float]]:
        """Numbers of steps after which the state is read out, with the weights of their losses."""
        if not self.training:
            return [(self.solver.steps, 1.0)]
        steps = self.solver.next_steps()
        if isinstance(self.supervision, Mixed):
            return self.supervision.reads(steps, self.solver.steps)
        return [(steps, 1.0)]

    def _run(
        self, drive: Tensor, state: State | None, reads: list[tuple[int, float]], record: bool | Visit
    ) -> RecurrenceOutput:
        drive, state = begin(self.cell, drive, state)
        differentiated = torch.is_grad_enabled()
        # An empty batch has no mean.
        penalty = self.penalty if differentiated and len(drive) else None
        states: list[State] | None = [] if record is True or self.supervision == "every" else None
        visits = [record] if callable(record) else []
        visits += [] if states is None else [states.append]
        step = CellStep(self.cell, drive, inference=not (self.training or differentiated))
        run = Run(step, state, self.solver, 0, visit=_all(visits))
        supervised: list[tuple[float, State]] = []
        taken, solution = 0, None
        for count, weight in reads:
            last = count == reads[-1][0]
            following = self.gradient.run(replace(run, steps=count - taken, penalty=penalty if last else None))
            solution = following if solution is None else following.after(solution)
            supervised.append((weight, solution.state))
            run, taken = replace(run, state=tuple(part.detach() for part in solution.state)), count
        if states is not None:
            states[-1] = solution.state
            if self.supervision == "every":
                supervised = [(1 / len(states), state) for state in states]
        if self.solver.stops_at_tol and not self._warned:
            self._warned = warn_unconverged(self.solver, solution.stats, "forward run")
        if not is_exported(drive):
            self.last_stats = solution.stats
        penalty_value = _zero(solution.state) if solution.penalty is None else solution.penalty
        return RecurrenceOutput(solution.state, penalty_value, solution.stats, states, supervised)

    def __getstate__(self) -> dict[str, Any]:
        """Without the statistics of the last run, whose callback belongs to the process."""
        return {**self.__dict__, "last_stats": None}

    def extra_repr(self) -> str:
        penalty = f", penalty={self.penalty!r}" if self.penalty is not None else ""
        return f"solver={self.solver!r}, gradient={self.gradient!r}{penalty}, supervision={self.supervision!r}"


def _all(visits: list[Visit]) -> Visit | None:
    """One function that calls all of them; None for an empty list."""
    if len(visits) < 2:
        return visits[0] if visits else None

    def visit(state: State) -> None:
        for each in visits:
            each(state)

    return visit


def _zero(state: State) -> Tensor:
    """A zero that is connected to the graph and stays zero when the state is not finite."""
    return state[0].flatten()[:0].sum()
