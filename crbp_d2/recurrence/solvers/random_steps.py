"""Plain iteration, in training for a random number of steps."""

import random
from typing import Any

import torch
from torch import nn

from crbp_d2.utils.errors import ContradictionError, check_choice, check_whole

from ..interfaces import Solution, Step, Visit
from ..state import State
from .base import CONVERGED, AnyCell, check_budget
from .fixed_steps import FixedSteps

DRAWS = ("uniform", "log")
# Runs of which a recomputation by activation checkpointing may still come.
REMEMBERED = 256


class RandomSteps(AnyCell, nn.Module):
    """Plain iteration; in training the number of steps is drawn anew for each run (Bansal et al. 2022).

    Under Truncated(k) all steps but the last k run without a graph, so the draw varies the state that these
    start from, at the memory of k steps.

    A draw is a function of `seed` and of the number of draws before it, so it is the same on all processes. That
    number, `draws`, is kept on the host and in checkpoints, so a resumed training continues with it. A run that
    activation checkpointing repeats takes the steps of the first time: it is recognized by torch's generator of the
    CPU, whose state is restored for it.

    Args:
        low, high: bounds of the steps of a training run, both included.
        steps: steps of a run in evaluation; default: half-way between low and high.
        seed: seed of the draws; the trainer sets another one for each RandomSteps of a model.
        draw: "uniform", or "log": 1 + the steps beyond `low` is log-uniform, so that most runs are short and
            some long.
        tol: residual within which a sample is reported as converged; it never stops the run.

    Raises:
        SettingError: low, high or steps < 1, low > high, tol outside (0, 1), an unknown draw.
    """

    stops_at_tol = False

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
        check_whole("RandomSteps", minimum=0, seed=seed)
        check_choice("RandomSteps", DRAWS, draw=draw)
        if low > high:
            raise ContradictionError({"low": low, "high": high}, "low must be at most high", "RandomSteps")
        self.low, self.high, self.steps, self.seed, self.tol, self.draw = low, high, steps, seed, tol, draw
        self._known: dict[int, int] = {}
        # Not a buffer, which would move to the device and make every draw wait for it.
        self.draws = torch.zeros((), dtype=torch.long)

    def next_steps(self) -> int:
        """Steps of the training run that is about to begin."""
        if not self.training:
            return self.steps
        run = int(torch.randint(2**62, (), device="cpu"))
        if run not in self._known:
            self._known = dict([*self._known.items(), (run, self._drawn())][-REMEMBERED:])
        return self._known[run]

    def _drawn(self) -> int:
        generator = random.Random(f"{self.seed} {self.draws.item()}")
        self.draws += 1
        if self.draw == "uniform":
            return generator.randint(self.low, self.high)
        beyond = self.high - self.low
        return self.low + min(int((beyond + 2) ** generator.random()) - 1, beyond)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        destination[f"{prefix}draws"] = self.draws

    def _load_from_state_dict(  # type: ignore[override]
        self, state_dict: dict[str, Any], prefix: str, metadata: dict, strict: bool, missing_keys: list[str], *rest: Any
    ) -> None:
        if f"{prefix}draws" in state_dict:
            self.draws.copy_(state_dict[f"{prefix}draws"])
        elif strict:
            missing_keys.append(f"{prefix}draws")

    def solve(self, step: Step, state: State, steps: int | None = None, visit: Visit | None = None) -> Solution:
        """Run `steps` steps (default: next_steps; 0 is allowed) from `state`; `visit` sees each new state."""
        return FixedSteps(self.steps, self.tol).solve(step, state, self.next_steps() if steps is None else steps, visit)

    def __repr__(self) -> str:
        draw = "" if self.draw == "uniform" else f", draw={self.draw!r}"
        return f"RandomSteps({self.low}, {self.high}, {self.steps}{draw})"
