"""How many steps an evaluation took where samples stop early."""

import logging
import math

from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from torch import nn

from crbp_d2.recurrence import EarlyExit, Recurrence


class EarlyStopStatistics(DatasetEvaluator):
    """Counts the steps of every sample of an evaluation (RoIs of a mask head, images of a contour head).

    `evaluate` returns {"recurrence": {"mean_steps": ...}}, not a number where there was no sample, and logs it
    once; {} of a model whose recurrence does not stop early.

    Args:
        model: has run on the inputs when `process` is called.
    """

    def __init__(self, model: nn.Module):
        modules = [module for module in model.modules() if isinstance(module, Recurrence)]
        self.recurrences = [module for module in modules if isinstance(module.solver, EarlyExit)]
        self.tol = next((module.solver.exit_tol for module in modules if isinstance(module.solver, EarlyExit)), None)
        self.reset()

    def reset(self) -> None:
        self._samples = self._steps = self._converged = 0

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        for recurrence in self.recurrences:
            stats = recurrence.last_stats
            self._samples += len(stats.sample_steps)
            self._steps += stats.sample_steps.sum().item()
            self._converged += stats.converged.sum().item()

    def evaluate(self) -> dict | None:
        """Results on the main process, None on the others."""
        if not self.recurrences:
            return {}
        gathered = comm.gather((self._samples, self._steps, self._converged))
        if not comm.is_main_process():
            return None
        samples, steps, converged = (sum(values) for values in zip(*gathered, strict=True))
        mean = steps / samples if samples else math.nan
        logging.getLogger(__name__).info(
            "Early stop at a residual of %g: %.2f steps, mean over %d samples, of which %d got there",
            self.tol, mean, samples, converged,
        )  # fmt: skip
        return {"recurrence": {"mean_steps": mean}}
