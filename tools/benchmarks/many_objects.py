"""Inference by number of detections and training by number of positive RoIs, compared with feedforward.

Random weights detect next to nothing, so that a mask head would have nothing to do: here the detections are given.
Times are of the processor, in one thread, so that other work on the machine does not count.

R: detections, or positive RoIs, of the image.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from crbp_d2.evaluation import PanopticEvaluator
from crbp_d2.recurrence import EarlyExit

from .tables import Table
from .whole_model import IMAGE, Clock, compare_models, inference, inputs_for, model_of, training_step

DETECTIONS, POSITIVES = (10, 50, 100), (16, 64, 128)
REPEATS = 3
ANDERSON = ("MODEL.RECURRENCE.SOLVER.NAME", "Anderson", "MODEL.RECURRENCE.SOLVER.MAX_STEPS", 7)
# As in configs/quick/panoptic_R18_contracting_toy.yaml.
SETTLING = ("MODEL.RECURRENCE.CELL.TIMESCALE", 2, "MODEL.RECURRENCE.PENALTY.NAME", "Contraction",
            "MODEL.RECURRENCE.PENALTY.REDUCTION", "mean")  # fmt: skip
FROM_DRIVE = ("MODEL.RECURRENCE.CELL.START", "drive")
CRBP, FEEDFORWARD = "panoptic_R50_crbp.yaml", "panoptic_R50_baseline.yaml"
INFERENCE: Mapping[str, tuple[str, tuple]] = {
    "feedforward": (FEEDFORWARD, ()),
    "20 steps": (CRBP, ()),
    "Anderson, 7 steps": (CRBP, ANDERSON),
    "early exit": (CRBP, SETTLING),
    "early exit, from the drive": (CRBP, (*SETTLING, *FROM_DRIVE)),
}
TRAINING: Mapping[str, tuple[str, tuple]] = {
    "feedforward": (FEEDFORWARD, ()),
    "identical": (CRBP, ()),
    "accelerated": (CRBP, (*ANDERSON, "MODEL.RECURRENCE.NEUMANN.TERMS", 3)),
    "from the drive": (CRBP, (*FROM_DRIVE, "MODEL.RECURRENCE.STEPS", 3, "MODEL.RECURRENCE.NEUMANN.TERMS", 1)),
}
# What a mask head does by itself; the rest of its backward pass cannot be told from that of the others.
HEAD = ("mask head", "penalty", "series")
# On which a first training step chooses kernels.
SMALL = (160, 224)

Medians = dict[str, dict[str, float]]


class ScriptedExit(EarlyExit):
    """Early exit after given numbers of steps in the place of those that a residual decides.

    Args:
        solver: see EarlyExit.
        exits: number of steps of each sample.
    """

    def __init__(self, solver, exits: Sequence[int]):
        super().__init__(solver)
        self.exits = torch.as_tensor(exits)

    def stops(self, taken: int, samples: Tensor, residual: Tensor) -> Tensor:
        return taken >= self.exits[samples]


def quantiles(steps: Sequence[int], count: int) -> list[int]:
    """`count` of the numbers, at equal distances in their order, in a fixed random order."""
    ordered = sorted(steps)
    chosen = [ordered[(2 * k + 1) * len(ordered) // (2 * count)] for k in range(count)]
    return [chosen[k] for k in torch.randperm(count, generator=torch.Generator().manual_seed(0))]


@contextmanager
def given_detections(model: nn.Module, size: tuple[int, int], count: int) -> Iterator[None]:
    """While it lasts the box head's outcome is `count` boxes, whatever it computes, with scores from 0.99 down to 0.05.

    Args:
        size: height, width of the image.
    """
    predictor = model.roi_heads.box_predictor
    found = inputs_for(size, count)[0]["instances"]
    classes = found.gt_classes % model.roi_heads.num_classes

    def infer(predictions, proposals):
        original(predictions, proposals)
        boxes = Boxes(found.gt_boxes.tensor.clone())
        scores = torch.linspace(0.99, 0.05, count)
        given = Instances(size, pred_boxes=boxes, scores=scores, pred_classes=classes)
        return [given.to(model.device)], [torch.arange(count)]

    original = predictor.inference
    predictor.inference = infer
    try:
        yield
    finally:
        del predictor.inference


def measure_inference(
    models: dict[str, nn.Module],
    counts: Sequence[int],
    repeats: int = REPEATS,
    size: tuple[int, int] = IMAGE,
    clock: Clock = time.process_time,
) -> dict[int, Medians]:
    """By the number of detections, medians as of `compare_models`, of an image of `size` (height, width)."""
    found = {}
    for count in counts:

        def run(model: nn.Module, inputs: list[dict], count: int = count) -> dict[str, float]:
            with given_detections(model, size, count):
                return inference(model, inputs, clock)

        inputs = inputs_for(size, count)
        if not found:
            for model in models.values():
                run(model, inputs)  # First calls choose kernels and allocate memory.
        found[count] = compare_models(models, inputs, run, repeats)
    return found


def measure_training(
    build: Callable[[int], dict[str, nn.Module]],
    counts: Sequence[int],
    size: tuple[int, int] = IMAGE,
    clock: Clock = time.process_time,
    repeats: int = REPEATS,
) -> dict[int, Medians]:
    """By the number of positive RoIs, medians as of `compare_models`.

    Args:
        build: models whose RoI heads sample so many positive RoIs.
    """
    found = {}
    for count in counts:
        models, inputs = build(count), inputs_for(size, count)

        def run(model: nn.Module, inputs: list[dict]) -> dict[str, float]:
            return training_step(model, inputs, clock)

        for model in models.values():
            run(model, inputs_for(SMALL, count))
        found[count] = compare_models(models, inputs, run, repeats)
    return found


def training_models(positives: int) -> dict[str, nn.Module]:
    """Models that train on so many positive RoIs an image, a quarter of those sampled."""
    sampling = ("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 4 * positives)
    return {name: model_of(config, *sampling, *options) for name, (config, options) in TRAINING.items()}


def inference_models(exits: Sequence[int] | None = None) -> dict[str, nn.Module]:
    """The models of INFERENCE, and one whose RoIs leave after the numbers of steps of `exits`."""
    models = {name: model_of(config, *options) for name, (config, options) in INFERENCE.items()}
    if exits:
        config, options = INFERENCE["early exit, from the drive"]
        models["the same, toy's steps"] = scripted = model_of(config, *options)
        recurrence = scripted.roi_heads.mask_head.recurrence
        recurrence.solver = ScriptedExit(recurrence.solver.solver, quantiles(exits, max(DETECTIONS)))
    return models


def ratios_table(found: dict[int, Medians], counted: str) -> Table:
    """Seconds of mask head and whole by number and model, with their ratios to the first model."""
    rows = []
    for count, medians in found.items():
        first = None
        for name, seconds in medians.items():
            parts = sum(seconds.get(part, 0) for part in HEAD), seconds["whole"]
            first = first or parts
            cells = [(f"{part:.2f}", f"{part / base:.2f}") for part, base in zip(parts, first, strict=True)]
            rows.append([count, name, *cells[0], *cells[1]])
    return Table([counted, "model", "mask head, s", "ratio", "whole, s", "ratio"], rows)


@torch.no_grad()
def measure_exits(model: nn.Module, loader: Iterable[list[dict]], name: str) -> tuple[list[int], float, float]:
    """Steps of every RoI of a trained model that exits early, its PQ in percent, and that with all steps.

    Args:
        loader: over the images of the data set `name`.
    """
    recurrence, was_training = model.roi_heads.mask_head.recurrence, model.training
    early = recurrence.solver
    model.eval()
    exits: list[int] = []
    quality = []
    try:
        for recurrence.solver in (early, early.solver):
            evaluator = PanopticEvaluator(name)
            evaluator.reset()
            for inputs in loader:
                evaluator.process(inputs, model(inputs))
                if recurrence.solver is early:
                    exits += recurrence.last_stats.sample_steps.tolist()
            quality.append(evaluator.evaluate()["panoptic_seg"]["PQ"])
    finally:
        recurrence.solver = early
        model.train(was_training)
    return exits, quality[0], quality[1]
