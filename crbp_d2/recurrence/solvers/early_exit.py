"""Early exit in inference, sample by sample.

N: samples of the batch.
"""

from typing import Any

import torch
from torch import Tensor, nn

from crbp_d2.utils.errors import ContradictionError, check_number
from crbp_d2.utils.tracing import refuse_export, refuse_transform

from ..cell_step import check_samples_apart
from ..interfaces import Cell, SampleStats, Solution, Solver, SolveStats, Step, Visit
from ..state import State, relative_change, select

# Steps between two looks at how many samples are left, each a wait for the device.
PERIOD = 2
# The batch shrinks to a multiple of SIZES, and only to at most this fraction of its size, so that a device sees few
# sizes.
SIZES, SHRINK = 8, 0.75


class EarlyExit(nn.Module):
    """Plain steps of another solver; in inference a sample is frozen once its residual is within `tol`.

    The residual is ||h_t - h_{t-1}|| / ||h_t||. Frozen samples leave the batch as soon as that makes it clearly
    smaller; the result of a sample does not depend on the others. A sample that turns non-finite takes all steps. In
    training, and wherever gradients are on, every sample takes all steps. Checkpoints are those of the solver within.

    Args:
        solver: FixedSteps or RandomSteps, or another plain iteration.
        tol: residual at which a sample is done, the attribute `exit_tol`; `tol` stays that of the solver within.

    Raises:
        TypeError: solver is not a solver.
        SettingError: tol outside (0, 1).
        ContradictionError: a solver that stops at a tolerance by itself; (with a cell) a batch norm.
    """

    stops_at_tol = False

    def __init__(self, solver: Solver, tol: float = 3e-3):
        super().__init__()
        check_number("EarlyExit", "(0, 1)", tol=tol)
        if not isinstance(solver, Solver):
            raise TypeError(f"EarlyExit: solver must be a solver, got {solver!r}")
        if solver.stops_at_tol:
            raise ContradictionError(
                {"tol": tol, "solver": solver},
                f"{solver!r} stops every sample at a tolerance by itself; use FixedSteps, or no early exit",
                "EarlyExit",
            )
        self.solver: Any = solver
        self.exit_tol = tol

    @property
    def steps(self) -> int:
        """Steps of the solver within."""
        return self.solver.steps

    @property
    def tol(self) -> float:
        """Residual within which a sample counts as converged where all steps are taken."""
        return self.solver.tol

    def next_steps(self) -> int:
        """Steps of a training run."""
        return self.solver.next_steps()

    def check(self, cell: Cell) -> None:
        """Raise a ContradictionError for a cell that mixes the samples of a batch."""
        self.solver.check(cell)
        check_samples_apart(cell, "EarlyExit", tol=self.exit_tol)

    def solve(self, step: Step, state: State, steps: int | None = None, visit: Visit | None = None) -> Solution:
        """At most `steps` steps; `visit` sees the state of all N samples after each, that of a stopped one repeated."""
        most = self.next_steps() if steps is None else steps
        if not step.inference or not most:
            return self.solver.solve(step, state, most, visit)
        refuse_export(state[0], repr(self), "use the solver within it")
        samples = torch.arange(len(state[0]), device=state[0].device)
        active = torch.ones_like(samples, dtype=torch.bool)
        previous, residual = state, torch.zeros_like(samples, dtype=torch.float64)
        taken, finite = torch.zeros_like(samples), torch.zeros_like(samples)
        # Results of the samples that have left the batch.
        kept: tuple[Tensor, ...] = ()
        for number in range(1, most + 1):
            new = step(state)
            refuse_transform(new, repr(self), "use the solver within it")
            change = relative_change(state, new)
            previous, state = select(active, state, previous), select(active, new, state)
            residual = torch.where(active, change, residual)
            taken, finite = taken + active, finite + (change < torch.inf)
            active = active & ~self.stops(number, samples, change)
            if visit:
                visit(_merged(kept, samples, state))
            if number % PERIOD and number < most:
                continue
            left = int(active.sum())
            if not left:
                break
            size = -(-left // SIZES) * SIZES
            if size <= SHRINK * len(samples):
                computed = (*state, *previous, residual, taken, finite)
                kept = _merged(kept, samples, computed)
                order = active.argsort(descending=True, stable=True)[:size]
                samples, active, *rest = (part.index_select(0, order) for part in (samples, active, *computed))
                *tensors, residual, taken, finite = rest
                state, previous = tuple(tensors[: len(state)]), tuple(tensors[len(state) :])
                step = step.subset(order)
        *tensors, residual, taken, finite = _merged(kept, samples, (*state, *previous, residual, taken, finite))

        def statistics() -> SampleStats:
            nonfinite_step = torch.where(finite < taken, finite + 1, 0)
            return SampleStats(taken, residual, residual <= self.exit_tol, nonfinite_step)

        stats = SolveStats(number, statistics)
        return Solution(tuple(tensors[len(state) :]), tuple(tensors[: len(state)]), stats)

    def stops(self, taken: int, samples: Tensor, residual: Tensor) -> Tensor:
        """Mask of the samples (given by their indices) that leave after `taken` steps with these residuals."""
        return residual <= self.exit_tol  # false for NaN

    # A checkpoint must load with and without early exit, so the keys are those of the solver within.

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:  # type: ignore[override]
        """The state of the solver within; {} for a solver without state."""
        if isinstance(self.solver, nn.Module):
            return self.solver.state_dict(*args, **kwargs)
        return super().state_dict(*args, **kwargs)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for key in [key for key in state_dict if key.startswith(prefix)]:
            state_dict[f"{prefix}solver.{key.removeprefix(prefix)}"] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def __repr__(self) -> str:
        return f"EarlyExit({self.solver!r}, tol={self.exit_tol})"


def _merged(kept: tuple[Tensor, ...], samples: Tensor, computed: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Results of all samples: `kept`, replaced by `computed` for the samples that still are."""
    return tuple(k.index_copy(0, samples, c) for k, c in zip(kept, computed, strict=False)) if kept else computed
