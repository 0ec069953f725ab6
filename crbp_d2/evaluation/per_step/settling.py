"""Numbers of steps: until samples exit early, and until predictions settle."""

import logging
import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import Instances
from detectron2.utils import comm
from torch import Tensor, nn
from torch.nn import functional as F

from crbp_d2.modeling.heads import recurrences, recurrent_heads
from crbp_d2.recurrence import EarlyExit
from crbp_d2.recurrence.state import State

from .record import record_states


class EarlyStopStatistics(DatasetEvaluator):
    """Counts the steps of every sample of an evaluation (RoIs of a mask head, images of a contour head).

    `evaluate` returns {"recurrence": {"mean_steps": ...}}, NaN without samples, and logs it once; {} for a model
    without early exit.

    Args:
        model: has run on the inputs when `process` is called.
    """

    def __init__(self, model: nn.Module):
        self.recurrences: list[Any] = [
            found for found in recurrences(model).values() if isinstance(found.solver, EarlyExit)
        ]
        self.reset()

    def reset(self) -> None:
        self._samples = self._steps = self._converged = 0

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        for stats in (recurrence.last_stats for recurrence in self.recurrences):
            self._samples += len(stats.sample_steps)
            steps, converged = torch.stack([stats.sample_steps.sum(), stats.converged.sum()]).tolist()
            self._steps += steps
            self._converged += converged

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
            "Early exit at a residual of %g: mean of %.2f steps over %d samples, %d of them converged",
            self.recurrences[0].solver.exit_tol, mean, samples, converged,
        )  # fmt: skip
        return {"recurrence": {"mean_steps": mean}}


def settling_steps(labels: Tensor) -> Tensor:
    """The first step (from 1) from which on each label equals the last one; labels: T x ..."""
    changed = labels != labels[-1]
    steps = torch.arange(1, len(labels) + 1, device=labels.device).view(-1, *[1] * (labels.dim() - 1))
    return (changed * steps).amax(dim=0) + 1


@contextmanager
def recorded_settling(model: nn.Module) -> Iterator[list[Tensor]]:
    """Map the settling steps of every recurrent head's runs in inference while the context is open.

    Yields a list to which each run of a semantic head adds an N x h x w map of the padded batch; a mask head gives
    its instances the field `settling`, N x h x w within their boxes. The steps are those that the model takes by
    itself, also where more are run to evaluate them.
    """
    maps: list[Tensor] = []
    with ExitStack() as stack:
        for head in recurrent_heads(model):
            watched = _Watched(head, maps)
            watched.run = stack.enter_context(record_states(head.recurrence, read=watched.labels))
            stack.callback(head.register_forward_pre_hook(watched.begin).remove)
            stack.callback(head.register_forward_hook(watched.end).remove)
        yield maps


class _Watched:
    """A head whose labels are read out after every step."""

    def __init__(self, head: nn.Module, maps: list[Tensor]):
        self.head, self.maps = head, maps
        self.instances: list[Instances] | None = None
        self.run: Any = None

    def begin(self, head: nn.Module, args: tuple) -> None:
        self.instances = args[1] if len(args) > 1 and isinstance(args[1], list) else None

    def labels(self, state: State) -> Tensor | None:
        """The class of each pixel, N x h x w; of a mask head, whether it is inside the mask of the instance's class."""
        if self.head.training:
            return None
        logits = self.head.read_out(state[0])
        if self.instances is None:
            return logits.argmax(dim=1)
        if logits.shape[1] == 1:
            return logits[:, 0] > 0
        classes = torch.cat([of_image.pred_classes for of_image in self.instances])
        return logits[torch.arange(len(classes), device=logits.device), classes] > 0

    def end(self, head: nn.Module, args: tuple, output: object) -> None:
        if self.run.outputs and not head.training:
            settled = settling_steps(torch.stack(self.run.states))
            if self.instances is None:
                self.maps.append(settled)
            else:
                parts = settled.split([len(of_image) for of_image in self.instances])
                for of_image, part in zip(self.instances, parts, strict=True):
                    of_image.settling = part
        self.run.outputs.clear()


def image_map(output: dict, maps: list[Tensor], image_size: tuple[int, int]) -> np.ndarray | None:
    """H x W float: the step at which each pixel of an image settled, NaN outside recurrent regions.

    Within boxes from the mask head, elsewhere from a semantic head; None for a model with neither.

    Args:
        output: the model's output for this image, run within `recorded_settling`.
        maps: what it yielded for the image.
        image_size: h x w of the image as the model saw it, without padding.
    """
    semantic = None
    if maps:
        part = unpadded(maps[-1][0], image_size, image_size).float()
        sized = F.interpolate(part[None, None], size=output["sem_seg"].shape[-2:], mode="nearest")
        semantic = sized[0, 0].cpu().numpy()
    instances = output.get("instances")
    if instances is None or not instances.has("settling"):
        return semantic
    in_boxes = _paste(instances.to("cpu"))
    return in_boxes if semantic is None else np.where(np.isnan(in_boxes), semantic, in_boxes)


def unpadded(readout: Tensor, image_size: tuple[int, int], largest: tuple[int, int]) -> Tensor:
    """The part of an h x w readout of a padded batch that shows one of its images.

    The readout is smaller than the batch by a power of two.

    Args:
        image_size: h x w of the image.
        largest: maximum height and width over the images of the batch.
    """
    stride = 1
    while readout.shape[0] * stride < largest[0] or readout.shape[1] * stride < largest[1]:
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
        model: its recurrent heads are observed from `reset` to `evaluate`.
    """

    def __init__(self, model: nn.Module):
        self.model = model
        self._context = ExitStack()

    def reset(self) -> None:
        self._context.close()
        self._maps = self._context.enter_context(recorded_settling(self.model))
        self._sum = self._count = self._largest = 0

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        for output in outputs:
            instances = output.get("instances")
            if instances is not None and instances.has("settling") and len(instances):
                self._add(instances.settling.flatten(1).amax(dim=1))
        sizes = [record["image"].shape[-2:] for record in inputs] if self._maps else []
        largest = tuple(map(max, zip(*sizes, strict=True)))
        for of_batch in self._maps:
            for record, settled in zip(inputs, of_batch, strict=True):
                self._add(unpadded(settled, record["image"].shape[-2:], largest))
        self._maps.clear()

    def _add(self, steps: Tensor) -> None:
        total, largest = torch.stack([steps.sum(), steps.max()]).tolist()
        self._sum += total
        self._count += steps.numel()
        self._largest = max(self._largest, largest)

    def evaluate(self) -> dict:
        self._context.close()
        gathered = comm.gather((self._sum, self._count, self._largest))
        if not comm.is_main_process():
            return {}
        sums, counts, largest = zip(*gathered, strict=True)
        if not sum(counts):
            return {}
        return {"settling": {"mean_steps": sum(sums) / sum(counts), "max_steps": max(largest)}}
