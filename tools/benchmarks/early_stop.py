"""Savings and costs of an early exit on a trained panoptic model."""

import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from crbp_d2.evaluation import PanopticEvaluator
from crbp_d2.recurrence import EarlyExit

from .tables import Table


@dataclass(frozen=True)
class EarlyStopCost:
    """One row: inference with one threshold.

    tol: the threshold; None: every RoI takes all steps.
    steps: mean of the RoIs.
    seconds: the mask head's, median over images.
    fraction: time relative to the mask head's without early exit on the same image, median over images.
    quality: PQ in percent.
    """

    tol: float | None
    steps: float
    seconds: float
    fraction: float
    quality: float


@torch.no_grad()
def measure_early_stop(
    model: nn.Module, loader: Iterable[list[dict]], name: str, tols: Sequence[float], steps: int
) -> list[EarlyStopCost]:
    """Run every image once with each threshold, one after the other, under the same load of the machine.

    Args:
        model: a RecurrentPanopticFPN.
        loader: over the images of the data set `name`; those without a detection are not timed.
        tols: thresholds; none at all comes first.
        steps: maximum number for an RoI.
    """
    head, settings = model.roi_heads.mask_head, [None, *tols]
    before = head.test_steps, head.recurrence.solver, model.training
    plain = before[1].solver if isinstance(before[1], EarlyExit) else before[1]
    evaluators = [PanopticEvaluator(name) for _ in settings]
    times: list[list[float]] = [[] for _ in settings]
    roi_steps: list[list[int]] = [[] for _ in settings]
    clock = _Clock(head)
    model.eval()
    head.test_steps = steps
    for evaluator in evaluators:
        evaluator.reset()
    try:
        for number, inputs in enumerate(loader):
            if number == 0:
                model(inputs)  # first calls choose kernels and allocate memory
            order = range(len(settings)) if number % 2 else reversed(range(len(settings)))
            for k in order:
                tol = settings[k]
                head.recurrence.solver = plain if tol is None else EarlyExit(plain, tol)
                outputs = model(inputs)
                evaluators[k].process(inputs, outputs)
                taken = head.recurrence.last_stats.sample_steps.tolist()
                roi_steps[k] += taken
                if taken:
                    times[k].append(clock.seconds)
    finally:
        clock.remove()
        head.test_steps, head.recurrence.solver = before[:2]
        model.train(before[2])
    return [
        EarlyStopCost(
            tol=tol,
            steps=statistics.fmean(roi_steps[k]),
            seconds=statistics.median(times[k]),
            fraction=statistics.median(a / b for a, b in zip(times[k], times[0], strict=True)),
            quality=evaluators[k].evaluate()["panoptic_seg"]["PQ"],
        )
        for k, tol in enumerate(settings)
    ]


class _Clock:
    """Times the calls of a module; `seconds` is the last one's."""

    def __init__(self, module: nn.Module):
        self.seconds = 0.0
        self._start = 0.0
        self._hooks = [module.register_forward_pre_hook(self._begin), module.register_forward_hook(self._end)]

    def remove(self) -> None:
        for hook in self._hooks:
            hook.remove()

    def _begin(self, *_) -> None:
        self._start = _now()

    def _end(self, *_) -> None:
        self.seconds = _now() - self._start


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def early_stop_table(rows: dict[int, list[EarlyStopCost]]) -> Table:
    """Results of `measure_early_stop` by the maximum number of steps."""
    headers = ["steps at most", "threshold", "steps, mean", "mask head, ms an image", "fraction of the time", "PQ",
               "PQ lost"]  # fmt: skip
    return Table(
        headers,
        [
            [steps, "none" if cost.tol is None else f"{cost.tol:g}", f"{cost.steps:.2f}", f"{1000 * cost.seconds:.1f}",
             f"{cost.fraction:.2f}", f"{cost.quality:.2f}", f"{costs[0].quality - cost.quality:.2f}"]
            for steps, costs in rows.items()
            for cost in costs
        ],
    )  # fmt: skip
