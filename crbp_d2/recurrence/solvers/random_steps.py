"""Plain iteration, in training for a random number of steps."""

import random

import torch
from torch import Tensor, nn

from crbp_d2.utils.errors import ContradictionError, check_choice, check_whole

from ..interfaces import Step, Visit
from ..solution import Solution
from ..state import State
from .base import CONVERGED, AnyCell, check_budget
from .fixed_steps import FixedSteps

DRAWS = ("uniform", "log")


class RandomSteps(AnyCell, nn.Module):
    """Plain iteration; in training the number of steps is drawn anew for each run (Bansal et al. 2022).

    Under Truncated(k) all steps but the last k run without a graph, so the draw is of the state that these
    start from, at the memory of k steps.

    A draw depends on `seed` and on the number of draws before it alone, not on a global generator: it is the
    same on all processes. That number is a buffer, which checkpoints hold, so a resumed training continues with it.

    Args:
        low, high: steps of a training run, drawn from low to high, both included.
        steps: those of a run in evaluation, or without gradients; default: half-way between low and high.
        seed: of the draws.
        draw: "uniform", or "log": 1 more than the steps beyond `low` is log-uniform, so that most runs are short and
            some long.
        tol: residual within which a sample is reported as converged; it never stops the run.

    Raises:
        SettingError: low, high or steps < 1, low > high, tol outside (0, 1), another draw.
    """

    stops_at_tol = False
    draws: Tensor

    def __init__(
        self,
        low: int,
        high: int,
        steps: int | None = None,
        seed: int = 0,
        tol: float = CONVERGED,
        draw: str = "uniform",
    ):
        super().__init__()
        check_budget("RandomSteps", low=low, high=high, tol=tol)
        steps = (low + high) // 2 if steps is None else steps
        check_budget("RandomSteps", steps=steps, tol=tol)
        check_whole("RandomSteps", least=0, seed=seed)
        check_choice("RandomSteps", DRAWS, draw=draw)
        if low > high:
            raise ContradictionError({"low": low, "high": high}, "low must be at most high", "RandomSteps")
        self.low, self.high, self.steps, self.seed, self.tol, self.draw = low, high, steps, seed, tol, draw
        self.register_buffer("draws", torch.zeros((), dtype=torch.long))

    def next_steps(self) -> int:
        """The number of steps of a run that names none; in training with gradients a draw."""
        if not (self.training and torch.is_grad_enabled()):
            return self.steps
        generator = random.Random(f"{self.seed} {self.draws.item()}")
        self.draws += 1
        if self.draw == "uniform":
            return generator.randint(self.low, self.high)
        beyond = self.high - self.low
        return self.low + min(int((beyond + 2) ** generator.random()) - 1, beyond)

    def solve(self, step: Step, state: State, steps: int | None = None, visit: Visit | None = None) -> Solution:
        """Run `steps` steps (default: next_steps; 0 is allowed) from `state`; `visit` sees each new state."""
        return FixedSteps(self.steps, self.tol).solve(step, state, self.next_steps() if steps is None else steps, visit)

    def __repr__(self) -> str:
        draw = "" if self.draw == "uniform" else f", draw={self.draw!r}"
        return f"RandomSteps({self.low}, {self.high}, {self.steps}{draw})"
