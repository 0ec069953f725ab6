"""How many steps an evaluation took where samples stop early."""

import logging
import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import cv2
import numpy as np
import torch
from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import Instances
from detectron2.utils import comm
from torch import Tensor, nn
from torch.nn import functional as F

from crbp_d2.recurrence import EarlyExit, Recurrence, RecurrenceOutput


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


def settling_steps(labels: Tensor) -> Tensor:
    """The first step (from 1) after which each label stays what it is at the end, of T x ... labels."""
    changed = labels != labels[-1]
    steps = torch.arange(1, len(labels) + 1, device=labels.device).view(-1, *[1] * (labels.dim() - 1))
    return (changed * steps).amax(dim=0) + 1


@contextmanager
def recorded_settling(model: nn.Module) -> Iterator[list[Tensor]]:
    """While it lasts, the settling maps of every recurrent head's runs in inference.

    Yields a list that grows by an N x h x w map with each run of a semantic head; of a mask head the instances get
    the field `settling`, N x h x w within their boxes.
    """
    maps: list[Tensor] = []
    handles = []
    for head in model.modules():
        if not isinstance(getattr(head, "recurrence", None), Recurrence):
            continue
        runs: list[RecurrenceOutput] = []
        handles += [
            head.recurrence.register_forward_pre_hook(_record_states, with_kwargs=True),
            head.recurrence.register_forward_hook(lambda module, args, output, runs=runs: runs.append(output)),
            head.register_forward_hook(lambda module, args, output, runs=runs: _keep(module, args, runs, maps)),
        ]
    try:
        yield maps
    finally:
        for handle in handles:
            handle.remove()


def _record_states(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    return args, {**kwargs, "record": True}


def _keep(head: nn.Module, args: tuple, runs: list[RecurrenceOutput], maps: list[Tensor]) -> None:
    if head.training or not runs:
        return
    logits = [head.read_out(state[0]) for state in runs.pop().states]
    instances = args[1] if len(args) > 1 and isinstance(args[1], list) else None
    if instances is None:
        maps.append(settling_steps(torch.stack([of_step.argmax(dim=1) for of_step in logits])))
        return
    settled = settling_steps(torch.stack([_inside(of_step, instances) for of_step in logits]))
    for of_image, part in zip(instances, settled.split([len(i) for i in instances]), strict=True):
        of_image.settling = part


def _inside(logits: Tensor, instances: list[Instances]) -> Tensor:
    """N x h x w: inside or outside of the mask of the class of each instance."""
    if logits.shape[1] == 1:
        return logits[:, 0] > 0
    classes = torch.cat([of_image.pred_classes for of_image in instances])
    return logits[torch.arange(len(classes), device=logits.device), classes] > 0


def image_map(output: dict, maps: list[Tensor], image_size: tuple[int, int]) -> np.ndarray:
    """H x W float: the step at which each pixel of a picture settled, not a number where nothing recurrent looked.

    Within boxes that of the mask head, elsewhere that of a semantic head.

    Args:
        output: of the model for that one picture, run within `recorded_settling`.
        maps: what it yielded for it.
        image_size: of the picture as the model saw it, without padding.
    """
    semantic = None
    if maps:
        part = unpadded(maps[-1][0], image_size).float()
        sized = F.interpolate(part[None, None], size=output["sem_seg"].shape[-2:], mode="nearest")
        semantic = sized[0, 0].cpu().numpy()
    instances = output.get("instances")
    if instances is None or not instances.has("settling"):
        return semantic
    in_boxes = _paste(instances.to("cpu"))
    return in_boxes if semantic is None else np.where(np.isnan(in_boxes), semantic, in_boxes)


def unpadded(readout: Tensor, image_size: tuple[int, int]) -> Tensor:
    """The part of an h x w readout, a power of two smaller than the padded batch, that shows the picture itself."""
    stride = 1
    while readout.shape[0] * stride < image_size[0] or readout.shape[1] * stride < image_size[1]:
        stride *= 2
    return readout[: -(-image_size[0] // stride), : -(-image_size[1] // stride)]


def _paste(instances: Instances) -> np.ndarray:
    found = np.full(instances.image_size, np.nan)
    height, width = instances.image_size
    for box, steps in zip(instances.pred_boxes.tensor.numpy(), instances.settling.numpy(), strict=True):
        x0, y0, x1, y1 = (int(round(value)) for value in box)
        x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
        if x1 > x0 and y1 > y0:
            sized = cv2.resize(steps.astype(np.float32), (x1 - x0, y1 - y0), interpolation=cv2.INTER_NEAREST)
            found[y0:y1, x0:x1] = np.fmax(found[y0:y1, x0:x1], sized)
    return found


class SettlingStatistics(DatasetEvaluator):
    """{"settling": mean_steps, max_steps} over the pixels (of a mask head: over the RoIs) of an evaluation.

    Args:
        model: whose recurrent heads are watched from `reset` to `evaluate`.
    """

    def __init__(self, model: nn.Module):
        self.model = model
        self._context: AbstractContextManager[list[Tensor]] | None = None
        self._maps: list[Tensor] = []
        self._sum, self._count, self._largest = 0.0, 0, 0

    def reset(self) -> None:
        self._close()
        self._context = recorded_settling(self.model)
        self._maps = self._context.__enter__()
        self._sum, self._count, self._largest = 0.0, 0, 0

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        for output in outputs:
            instances = output.get("instances")
            if instances is not None and instances.has("settling") and len(instances):
                self._add(instances.settling.flatten(1).amax(dim=1))
        for of_batch in self._maps:
            for record, settled in zip(inputs, of_batch, strict=True):
                self._add(unpadded(settled, record["image"].shape[-2:]).flatten())
        self._maps.clear()

    def _add(self, steps: Tensor) -> None:
        self._sum += steps.double().sum().item()
        self._count += steps.numel()
        self._largest = max(self._largest, int(steps.max()))

    def evaluate(self) -> dict:
        self._close()
        gathered = comm.gather((self._sum, self._count, self._largest))
        if not comm.is_main_process():
            return {}
        sums, counts, largest = zip(*gathered, strict=True)
        if not sum(counts):
            return {}
        return {"settling": {"mean_steps": sum(sums) / sum(counts), "max_steps": max(largest)}}

    def _close(self) -> None:
        if self._context is not None:
            self._context.__exit__(None, None, None)
            self._context = None
