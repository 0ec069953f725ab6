"""The joint of cell, solver, gradient, penalty and supervision."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from .cell_step import CellStep, checked_state
from .chunked import Parameters, run_in_chunks
from .compiled import compiled_step, prepare
from .gradients import Implicit, Trajectory
from .penalties import REDUCTIONS
from .scope import solve_scope
from .solvers.base import SolveStats, check_budget, warn_unconverged
from .solvers.early_exit import mixes_samples, stop_early
from .solvers.neumann import NeumannSeries
from .state import State, describe, is_finite

SUPERVISION = ("last", "every")


@dataclass
class RecurrenceOutput:
    """What a run returns.

    state: the last state (of a solver that stops at a tolerance: the step of the best state it found),
        differentiable by the chosen gradient.
    penalty: unweighted scalar; 0 with a graph where the recurrence has no penalty.
    stats: steps, residual, converged; after the backward pass also the backward solve.
    states: the state after every step, with supervision "every" or record=True, else None. It ends where the
        last sample stopped.
    """

    state: State
    penalty: Tensor
    stats: SolveStats
    states: list[State] | None = None

    def after(self, steps: int) -> State:
        """The recorded state after `steps` steps; a solver that stops at a tolerance stays where it stopped."""
        return self.states[min(steps, len(self.states)) - 1]


class Recurrence(nn.Module):
    """h_{t+1} = cell(drive, h_t), run and differentiated as its parts say.

    Args:
        cell: module with `forward(drive, state) -> state` and `initial_state(drive) -> state`.
        solver: how steps are run: FixedSteps(20), Anderson(...), Broyden(...).
        gradient: how the last state is differentiated: Unrolled(), Truncated(3), Implicit(...).
        penalty: callable (previous, state) -> scalar, or None.
        supervision: "last", or "every" to have all states in the output.
        chunk_size: samples whose last step is held at once in training, for an Implicit gradient; the
            gradients stay the same, at the cost of two evaluations more. 0: all samples.
        early_stop: residual within which a sample takes no further steps and leaves the batch, in evaluation
            mode without gradients (see stop_early); None: every sample takes all steps. May be set at any time.
        compile: run steps through torch.compile: those without a graph, and in training also those that an
            unrolled gradient without penalty records. Results are the same up to rounding.

    Raises:
        ValueError: arguments that contradict each other.
    """

    def __init__(
        self,
        cell: nn.Module,
        solver,
        gradient,
        penalty: Callable[[State, State], Tensor] | None = None,
        supervision: str = "last",
        chunk_size: int = 0,
        early_stop: float | None = None,
        compile: bool = False,
    ):
        super().__init__()
        if supervision not in SUPERVISION:
            raise ValueError(f"supervision must be one of {', '.join(SUPERVISION)}, got {supervision!r}")
        if isinstance(solver, NeumannSeries):
            raise ValueError("NeumannSeries solves the transposed problem of an Implicit gradient, not the forward run")
        gradient.check(solver, supervision)
        if chunk_size:
            _check_chunks(chunk_size, cell, gradient, penalty)
        if early_stop is not None:
            _check_early_stop(early_stop, solver, cell)
        self.cell = cell
        self.solver = solver
        self.gradient = gradient
        self.penalty = penalty
        self.supervision = supervision
        self.chunk_size = chunk_size
        self.early_stop = early_stop
        self.compile_steps = compile
        if compile:
            prepare(cell)
        self.last_stats: SolveStats | None = None
        self._warned = False

    @solve_scope()
    def forward(
        self, drive: Tensor, state: State | None = None, steps: int | None = None, record: bool = False
    ) -> RecurrenceOutput:
        """Run the recurrence.

        Args:
            drive: N x C x H x W, the same at every step.
            state: where to start; default the cell's initial state.
            steps: evaluations of the cell (at most, for a solver that stops at a tolerance); default the
                solver's own number.
            record: keep the state after every step.

        Raises:
            ValueError: steps < 1; a drive or state of another shape than the cell's; a state that the cell
                answers with one of another shape.

        Warns:
            UnconvergedWarning: once, if a solver that stops at a tolerance does not get there.
        """
        if steps is None:
            steps = self.solver.next_steps()
        if steps < 1:
            raise ValueError(f"Recurrence: steps must be at least 1, got {steps}")
        state = self._start(drive, state)
        if 0 < self.chunk_size < len(drive) and torch.is_grad_enabled() and not record:
            output = self._in_chunks(drive, state, steps)
        else:
            _, output = self._at_once(drive, state, steps, record)
        self._warned = self._warned or warn_unconverged(self.solver, output.stats, "forward run")
        self.last_stats = output.stats
        return output

    def _at_once(
        self,
        drive: Tensor,
        state: State,
        steps: int,
        record: bool,
        call: Callable[[Tensor, State], State] | None = None,
    ) -> tuple[State, RecurrenceOutput]:
        """The second-last state, and the output."""
        penalized = self.penalty is not None and torch.is_grad_enabled() and drive.shape[0] > 0
        if penalized:
            # The penalty differentiates the last step by its input, which is this one if there is only one step.
            state = tuple(part if part.requires_grad else part.detach().requires_grad_() for part in state)

        step = CellStep(self.cell, call or self._call)
        states: list[State] | None = [] if record or self.supervision == "every" else None
        finite: list[Tensor] = []

        def visit(h: State) -> None:
            finite.append(is_finite(h))
            if states is not None:
                states.append(h)

        if self.early_stop is not None and not (self.training or torch.is_grad_enabled()):
            keep = None if states is None else states.append
            solution = stop_early(step, drive, state, steps, self.early_stop, keep)
            trajectory, stats = Trajectory(solution.state, solution), solution.report(self.early_stop)
        else:
            trajectory = self.gradient.run(lambda h: step(drive, h), state, self.solver, steps, visit)
            solution = trajectory.solution
            stats = solution.report(self.solver.tol)
            stats.nonfinite_step = _first_false(torch.stack(finite))
        if states is not None:
            states[-1] = trajectory.state
        penalty = self.penalty(solution.previous, solution.state) if penalized else _zero(trajectory)
        trajectory.watch(stats)
        return solution.previous, RecurrenceOutput(trajectory.state, penalty, stats, states)

    def _in_chunks(self, drive: Tensor, state: State, steps: int) -> RecurrenceOutput:
        @solve_scope()
        def run(part: Tensor, start: State, steps: int, parameters: Parameters, before_recorded: Callable[[], None]):
            def call(drive: Tensor, state: State) -> State:
                if not torch.is_grad_enabled():
                    return self._call(drive, state)
                before_recorded()
                return functional_call(self.cell, parameters, (drive, state))

            previous, output = self._at_once(part, start, steps, record=False, call=call)
            return previous, output.state, output.penalty, output.stats

        parameters = {name: p for name, p in self.cell.named_parameters() if p.requires_grad}
        mean = getattr(self.penalty, "reduction", None) == "mean"
        return RecurrenceOutput(*run_in_chunks(run, drive, state, steps, self.chunk_size, parameters, mean))

    def _start(self, drive: Tensor, state: State | None) -> State:
        channels = getattr(self.cell, "channels", None)
        if channels is not None and (drive.dim() < 2 or drive.shape[1] != channels):
            raise ValueError(
                f"Recurrence: the drive is {describe((drive,))}, but {type(self.cell).__name__} takes N x {channels} "
                "x ..."
            )
        initial = checked_state(self.cell.initial_state(drive), type(self.cell).__name__)
        if state is None:
            return initial
        state = checked_state(state, type(self.cell).__name__)
        if [part.shape for part in state] != [part.shape for part in initial]:
            raise ValueError(
                f"Recurrence: the state is {describe(state)}, but a drive of {describe((drive,))} takes one of "
                f"{describe(initial)}"
            )
        return state

    def _call(self, drive: Tensor, state: State) -> State:
        # A penalty differentiates a step twice, an Implicit gradient once a product.
        recorded_once = self.penalty is None and not isinstance(self.gradient, Implicit)
        if self.compile_steps and (recorded_once or not torch.is_grad_enabled()):
            return compiled_step(self.cell, drive, state)
        return self.cell(drive, state)

    def __getstate__(self) -> dict:
        """Without the statistics of the last run, whose callback belongs to the process."""
        return {**self.__dict__, "last_stats": None}

    def extra_repr(self) -> str:
        penalty = f", penalty={self.penalty!r}" if self.penalty is not None else ""
        chunks = f", chunk_size={self.chunk_size}" if self.chunk_size else ""
        early_stop = f", early_stop={self.early_stop}" if self.early_stop is not None else ""
        compiled = ", compile=True" if self.compile_steps else ""
        parts = f"solver={self.solver!r}, gradient={self.gradient!r}{penalty}, supervision={self.supervision!r}"
        return parts + chunks + early_stop + compiled


def _check_early_stop(tol: float, solver, cell: nn.Module) -> None:
    check_budget("Recurrence: early_stop", tol=tol)
    if solver.stops_at_tol:
        raise ValueError(f"Recurrence: early_stop is {tol}, but {solver!r} stops every sample at a tolerance by itself")
    if mixes_samples(cell):
        raise ValueError(
            f"Recurrence: early_stop is {tol}, but a batch norm in {type(cell).__name__} mixes the samples of a batch, "
            "so that a result would depend on which of the others have stopped"
        )


def _check_chunks(chunk_size: int, cell: nn.Module, gradient, penalty) -> None:
    if chunk_size < 0 or chunk_size != int(chunk_size):
        raise ValueError(f"Recurrence: chunk_size must be a whole number from 1, or 0 for all, got {chunk_size}")
    if not isinstance(gradient, Implicit):
        raise ValueError(f"chunk_size bounds what an Implicit gradient holds; {gradient} holds every step it unrolls")
    if mixes_samples(cell):
        raise ValueError("chunk_size changes the batch that a batch norm takes its statistics from; use another norm")
    if penalty is not None and getattr(penalty, "reduction", None) not in REDUCTIONS:
        raise ValueError(f"chunk_size needs a penalty whose attribute `reduction` is one of {', '.join(REDUCTIONS)}")


def _first_false(holds: Tensor) -> Tensor:
    """The first step (from 1) of each sample at which `holds` (T x N) is false, or 0."""
    first = (~holds).long().argmax(dim=0) + 1
    return torch.where(holds.all(dim=0), 0, first)


def _zero(trajectory: Trajectory) -> Tensor:
    """A zero that hangs on the graph and stays zero when the state is not finite."""
    return trajectory.state[0].flatten()[:0].sum()
