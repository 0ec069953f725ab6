"""The phantom gradient: a few damped steps at the end of a solve are unrolled (Geng et al. 2021)."""

from __future__ import annotations

import torch
from torch import Tensor

from crbp_d2.utils.errors import check_number, check_whole

from ..guards import start_recording
from ..interfaces import Cell, Penalty, Run, Solution, Solver, Step
from ..solvers.fixed_steps import FixedSteps
from ..state import State
from ..supervision import Supervision
from .unrolled import check_last_states


class DampedStep:
    """h -> (1 - damping) h + damping f(h) of a step f, which has the fixed points of f.

    Args:
        damping: fraction of the new state, in (0, 1].
    """

    def __init__(self, step: Step, damping: float):
        self.step, self.damping = step, damping

    @property
    def inference(self) -> bool:
        """See Step."""
        return self.step.inference

    def __call__(self, state: State) -> State:
        return tuple(torch.lerp(old, new, self.damping) for old, new in zip(state, self.step(state), strict=True))

    def subset(self, samples: Tensor) -> DampedStep:
        """The step of some of the samples, by their indices."""
        return DampedStep(self.step.subset(samples), self.damping)


class Phantom:
    """Autograd through the last `truncation` steps, which are plain and damped, whatever solver found their start.

    At a fixed point the gradient is u dF/dw with u = damping * sum over i < k of g M^i, M = (1 - damping) I + damping J
    (Geng et al. 2021, eq. 7): for k that grows it tends to that of the implicit function. Memory is that of k
    steps. Runs without gradients take the same steps.

    Args:
        truncation: k, at least 1, of the steps that a run takes at most.
        damping: fraction of the new state in a recorded step, in (0, 1]; 1: undamped.

    Raises:
        SettingError: truncation < 1, damping outside (0, 1].
    """

    def __init__(self, truncation: int = 3, damping: float = 0.5):
        check_whole("Phantom", truncation=truncation)
        check_number("Phantom", "(0, 1]", damping=damping)
        self.truncation, self.damping = truncation, damping

    def check(self, cell: Cell, solver: Solver, penalty: Penalty | None, supervision: Supervision) -> None:
        """Raise a ContradictionError for a solver with too few steps, or a loss on every state."""
        check_last_states(self, solver, supervision, self.truncation)

    def run(self, run: Run) -> Solution:
        """See Gradient."""
        kept = min(self.truncation, run.steps)
        with torch.no_grad():
            before = run.first(run.steps - kept)
        recorded, start = FixedSteps(kept, run.solver.tol), start_recording(before.state)
        solution = recorded.solve(DampedStep(run.step, self.damping), start, kept, run.visit).after(before)
        if run.penalty is not None:
            solution.penalty = run.penalty(solution.previous, solution.state)
        return solution

    def __repr__(self) -> str:
        return f"Phantom({self.truncation}, damping={self.damping})"
