"""A training step and inference of the whole Panoptic FPN against the feedforward model's, by part.

R: positive RoIs an image; S: shorter side of an image.
"""

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import nn

from crbp_d2 import modeling  # noqa: F401  (registers the heads)
from crbp_d2.config import add_crbp_config

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
IMAGE = (800, 1088)
# Seconds since some moment.
Clock = Callable[[], float]


def model_of(config: str, *options: object) -> nn.Module:
    """A panoptic model from random initialisation, on the default device."""
    cfg = get_cfg()
    add_crbp_config(cfg)
    cfg.merge_from_file(str(CONFIGS / config))
    cfg.merge_from_list(["MODEL.WEIGHTS", "", "MODEL.DEVICE", "cuda" if torch.cuda.is_available() else "cpu", *options])
    return build_model(cfg)


def inputs_for(size: tuple[int, int], rois: int) -> list[dict]:
    """One image (height, width) with R instances, which are the R positive RoIs of a training step."""
    height, width = size
    generator = torch.Generator().manual_seed(0)
    extent = torch.tensor([width, height, width, height])
    corner = torch.rand(rois, 2, generator=generator) * 0.7
    boxes = torch.cat([corner, corner + 0.1 + 0.2 * torch.rand(rois, 2, generator=generator)], dim=1) * extent
    masks = torch.zeros(rois, height, width, dtype=torch.bool)
    for mask, (left, top, right, bottom) in zip(masks, boxes.long().tolist(), strict=True):
        mask[top:bottom, left:right] = True
    instances = Instances(size, gt_boxes=Boxes(boxes), gt_masks=BitMasks(masks))
    instances.gt_classes = torch.randint(80, (rois,), generator=generator)
    semantic = torch.randint(54, size, generator=generator)
    image = torch.randint(256, (3, *size), generator=generator, dtype=torch.uint8)
    return [{"image": image, "instances": instances, "sem_seg": semantic, "height": height, "width": width}]


@contextmanager
def watched(model: nn.Module, seconds: dict[str, float], clock: Clock = time.perf_counter) -> Iterator[None]:
    """Add the time spent in each part of the model to `seconds`; outermost calls only."""
    heads = {"backbone": model.backbone, "RPN": model.proposal_generator, "semantic head": model.sem_seg_head,
             "box head": model.roi_heads.box_head, "mask head": model.roi_heads.mask_head}  # fmt: skip
    restore: list[Callable[[], None]] = []

    def watch(owner: object, name: str, part: str) -> None:
        original = getattr(owner, name)

        def timed(*args, **kwargs):
            start = clock()
            try:
                return original(*args, **kwargs)
            finally:
                seconds[part] += clock() - start

        setattr(owner, name, timed)
        restore.append(lambda: delattr(owner, name))

    for part, module in heads.items():
        watch(module, "forward", part)
    recurrence = getattr(model.roi_heads.mask_head, "recurrence", None)
    if recurrence is not None:
        watch(recurrence.gradient.transpose, "solve", "series")
        penalty = recurrence.penalty

        def timed_penalty(*args):
            start = clock()
            value = penalty(*args)
            spent = clock() - start
            seconds["penalty"] += spent
            seconds["mask head"] -= spent
            return value

        recurrence.penalty = timed_penalty
        restore.append(lambda: setattr(recurrence, "penalty", penalty))
    try:
        yield
    finally:
        for undo in restore:
            undo()


def training_step(model: nn.Module, inputs: list[dict], clock: Clock = time.perf_counter) -> dict[str, float]:
    """Seconds by part of one forward and backward pass, and in all ("whole")."""
    seconds: dict[str, float] = defaultdict(float)
    model.train()
    model.zero_grad(set_to_none=True)
    with EventStorage(), watched(model, seconds, clock):
        start = clock()
        loss = sum(model(inputs).values())
        middle = clock()
        loss.backward()
        end = clock()
    seconds["rest of the backward pass"] = end - middle - seconds.get("series", 0)
    seconds["whole"] = end - start
    return seconds


@torch.no_grad()
def inference(model: nn.Module, inputs: list[dict], clock: Clock = time.perf_counter) -> dict[str, float]:
    """Seconds by part of one inference, and in all ("whole")."""
    seconds: dict[str, float] = defaultdict(float)
    model.eval()
    with watched(model, seconds, clock):
        start = clock()
        model(inputs)
        seconds["whole"] = clock() - start
    return seconds


def compare_models(
    models: dict[str, nn.Module], inputs: list[dict], run: Callable[[nn.Module, list[dict]], dict], repeats: int
) -> dict[str, dict[str, float]]:
    """Median seconds by part of each model, and "ratio", the median over rounds of its time to the first model's."""
    rounds = [{name: run(model, inputs) for name, model in models.items()} for _ in range(repeats)]
    first = next(iter(models))
    medians = {}
    for name in models:
        parts = {part for seconds in rounds for part in seconds[name]}
        medians[name] = {part: statistics.median(seconds[name].get(part, 0) for seconds in rounds) for part in parts}
        ratios = [seconds[name]["whole"] / seconds[first]["whole"] for seconds in rounds]
        medians[name]["ratio"] = statistics.median(ratios)
    return medians
