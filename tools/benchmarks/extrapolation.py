"""How long the paper's trainings would take on GPUs, from parts that are measured here and assumptions by name."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial

import torch
from detectron2.config import get_cfg
from detectron2.utils.events import EventStorage
from torch import nn

from crbp_d2.config import add_crbp_config
from crbp_d2.layers.convolution import set_convolution
from tools.page import markdown_table

from .loading import PANOPTIC, PATHFINDER
from .many_objects import training_models
from .step_profile import count_operations
from .whole_model import CONFIGS, IMAGE, inputs_for, model_of

FEEDFORWARD, DIRECT = "feedforward", "hGRU, direct"
POSITIVES, STIMULI, SIDE, ROUNDS = 64, 2, 150, 3
# Images of COCO train2017, and stimuli of the paper's training split.
COCO, PAPER_STIMULI = 118_287, 180_000
# Seconds an iteration of 16 images on 8 V100, of the feedforward model (panoptic_fpn_R_50_1x in its MODEL_ZOO.md).
PUBLISHED = 0.304
FLOAT32 = 4


def assumption(default: float, unit: str, reason: str) -> float:
    return field(default=default, metadata={"unit": unit, "reason": reason})


@dataclass(frozen=True)
class Assumptions:
    """Of the machine that is not here; units and reasons are in the fields' metadata."""

    gpus: float = assumption(8, "GPUs", "as the configs are made for")
    peak: float = assumption(15.7e12, "operations/s", "float32 of an NVIDIA V100, by its data sheet")
    fraction: float = assumption(0.5, "of the peak", "reached by all of a step, copies and launches included")
    bandwidth: float = assumption(10e9, "bytes/s", "in and out of a GPU while gradients are summed in a ring")
    overlap: float = assumption(0.0, "of the sum", "of gradients hidden behind the backward pass")
    cores: float = assumption(40, "cores", "that load data, each as fast as one here")


@dataclass(frozen=True)
class Training:
    """One training and what was measured of it.

    operations: of a training step an image, two a multiply-add, all convolutions direct. ratio: of the time measured to
    that of what the operations are of. parameters: that get gradients. batch: of all GPUs. images: of an epoch.
    rate: images a second and core that its loader delivers.
    """

    name: str
    operations: float
    ratio: float
    parameters: int
    batch: int
    iterations: int
    images: int
    rate: float


@dataclass(frozen=True)
class Estimate:
    """Seconds of one iteration by part, and the cores that its loader would need to keep up."""

    compute: float
    gradients: float
    loading: float
    cores: float

    @property
    def iteration(self) -> float:
        """Batches are loaded while others are computed."""
        return max(self.compute + self.gradients, self.loading)


def extrapolate(training: Training, given: Assumptions) -> Estimate:
    """An iteration by parts; a ring sends each gradient 2 (W - 1) / W times from each of its W GPUs."""
    images = training.batch / given.gpus
    compute = images * training.operations * training.ratio / (given.peak * given.fraction)
    sent = 2 * (given.gpus - 1) / given.gpus * FLOAT32 * training.parameters
    gradients = (1 - given.overlap) * sent / given.bandwidth
    loading = training.batch / (given.cores * training.rate)
    return Estimate(compute, gradients, loading, training.batch / (training.rate * (compute + gradients)))


@dataclass(frozen=True)
class Step:
    """A training step here, per image.

    operations: two a multiply-add, of direct convolutions and products of matrices. rounds: seconds of the processor as
    it is trained, round by round. direct: the same once with direct convolutions. parameters: that get gradients.
    """

    operations: float
    rounds: Sequence[float]
    direct: float
    parameters: int

    @property
    def seconds(self) -> float:
        return statistics.median(self.rounds)

    def ratio(self, other: "Step") -> float:
        """Median over the rounds of the times to those of another."""
        return statistics.median(mine / its for mine, its in zip(self.rounds, other.rounds, strict=True))


def measure_steps(
    works: Mapping[str, tuple[nn.Module, list[dict]]],
    rounds: int = ROUNDS,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, Step]:
    """Each once with direct convolutions, counted, then all in turn.

    Args:
        works: name -> model and the images of a step.
    """

    def run(name: str) -> float:
        model, inputs = works[name]
        model.train()
        model.zero_grad(set_to_none=True)
        start = clock()
        with EventStorage():
            sum(model(inputs).values()).backward()
        return (clock() - start) / len(inputs)

    operations, direct = {}, {}
    for name, (model, inputs) in works.items():
        taken: list[float] = []
        set_convolution(model, "direct")
        operations[name] = count_operations(partial(_keep, taken, run, name)) / len(inputs)
        set_convolution(model, "auto")
        direct[name] = taken[0]
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, mine in seconds.items():
            mine.append(run(name))
    return {
        name: Step(operations[name], seconds[name], direct[name], _trained_parameters(model))
        for name, (model, _) in works.items()
    }


def _keep(found: list[float], run: Callable[[str], float], name: str) -> None:
    found.append(run(name))


def _trained_parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def measure_models() -> dict[str, Step]:
    """The panoptic models with POSITIVES positive RoIs, and the Pathfinder network."""
    torch.manual_seed(0)
    images = inputs_for(IMAGE, POSITIVES)
    works = {name: (model, images) for name, model in training_models(POSITIVES).items()}
    return measure_steps(works | {"hGRU": (model_of(PATHFINDER), stimuli(STIMULI, SIDE))})


def stimuli(count: int, side: int) -> list[dict]:
    """Noise in the place of Pathfinder stimuli: the time does not depend on them."""
    generator = torch.Generator().manual_seed(0)
    size = side, side
    return [
        {"image": torch.randint(256, (1, *size), generator=generator, dtype=torch.uint8),
         "sem_seg": torch.randint(2, size, generator=generator), "height": side, "width": side}
        for _ in range(count)
    ]  # fmt: skip


def trainings(steps: Mapping[str, Step], rates: Mapping[str, float]) -> list[Training]:
    """The paper's trainings, by multiply-adds and by the ratios measured here.

    Args:
        steps: from `measure_models`.
        rates: images a second and core of the loaders, of "panoptic" and "pathfinder".
    """
    found = []
    feedforward = steps[FEEDFORWARD]
    settings = _schedule(PANOPTIC)
    for name, step in steps.items():
        if name == "hGRU":
            continue
        rows = [(f"panoptic, {name}", step.operations, 1.0)]
        if name != FEEDFORWARD:
            ratio = step.ratio(feedforward)
            rows.append((f"panoptic, {name}, by its ratio", feedforward.operations, ratio))
        found += [Training(*row, step.parameters, *settings, COCO, rates["panoptic"]) for row in rows]
    hgru = steps["hGRU"]
    last = hgru.parameters, *_schedule(PATHFINDER), PAPER_STIMULI, rates["pathfinder"]
    found.append(Training(f"Pathfinder, {DIRECT}", hgru.operations, 1.0, *last))
    found.append(Training("Pathfinder, hGRU, by its ratio", hgru.operations, hgru.seconds / hgru.direct, *last))
    return found


def _schedule(config: str) -> tuple[int, int]:
    """Images of a batch and iterations."""
    cfg = get_cfg()
    add_crbp_config(cfg)
    cfg.merge_from_file(str(CONFIGS / config))
    return cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.MAX_ITER


def extrapolation_section(steps: Mapping[str, Step], rates: Mapping[str, float], given: Assumptions) -> str:
    """Markdown: what was measured, what is assumed, what follows."""
    measured = [
        [name, f"{step.operations / 1e9:.0f}", f"{step.seconds:.2f}",
         f"{min(step.rounds):.2f} to {max(step.rounds):.2f}", f"{step.direct:.2f}", f"{step.parameters:,}"]
        for name, step in steps.items()
    ]  # fmt: skip
    assumed = [[f.name, f"{getattr(given, f.name):g}", f.metadata["unit"], f.metadata["reason"]] for f in fields(given)]
    every = trainings(steps, rates)
    followed = [_row(training, given) for training in every]
    first = extrapolate(every[0], given).iteration
    ratios = {name: step.ratio(steps[FEEDFORWARD]) for name, step in steps.items()}
    calibrated = ", ".join(
        f"{name} {PUBLISHED * ratio:.2f} s" for name, ratio in ratios.items() if name not in (FEEDFORWARD, "hGRU")
    )
    return "\n\n".join(
        [
            "Nothing here ran on a GPU: these are estimates from the parts below, to be replaced by a measurement.",
            f"Measured: a training step here, an image of {IMAGE[1]} x {IMAGE[0]} px with {POSITIVES} positive RoIs of "
            f"{4 * POSITIVES} (R-50), or a stimulus of {SIDE} x {SIDE} px (hGRU, 15 x 15 kernels). Operations are two "
            "a multiply-add, of direct convolutions and products of matrices, counted in the step that 'all direct' "
            f"times. Seconds are of the processor in one thread, medians of {ROUNDS} rounds in turn; ratios are "
            "medians of those of a round. 'identical' is C-RBP as in the paper; this and the other panoptic models are "
            "those of Training with many objects.",
            markdown_table(["model", "10^9 operations", "seconds", "from, to", "all direct", "parameters"], measured),
            f"A core here loads {rates['panoptic']:.1f} COCO-like images or {rates['pathfinder']:.1f} stimuli from "
            "files a second (see Cost as the work grows for how).",
            "Assumed:",
            markdown_table(["assumption", "value", "unit", "what it is"], assumed),
            "Assumed further: that all images are as large and have as many positive RoIs as the one measured; that "
            "every operation is as fast as any other, so that compute is inversely proportional to peak and "
            "fraction; that memory suffices; that optimizer, evaluation, checkpoints, the statistics that SyncBN "
            "exchanges and waiting for the slowest GPU take no time. "
            f"Batches and iterations are those of {PANOPTIC} and {PATHFINDER}, epochs of {COCO:,} images of COCO "
            f"train2017 and of {PAPER_STIMULI:,} stimuli. 'By its ratio' takes, in the place of the model's own "
            "operations, those of the feedforward model (for the hGRU those of direct convolutions) times the ratio of "
            "the seconds measured: what Winograd and Fourier transforms save here is then assumed to be saved there.",
            markdown_table(
                ["training", "compute, s", "gradients, s", "loading, s", "iteration, s", "cores to keep up",
                 "hours an epoch", "epochs", "hours"], followed,
            ),
            f"Held against a measurement of others: for the feedforward model detectron2's MODEL_ZOO.md reports "
            f"{PUBLISHED} s an iteration on 8 V100 with PyTorch 1.3, of which the estimate is {first / PUBLISHED:.2f} "
            f"times. From that figure and the ratios measured here: {calibrated}. The paper reports about twice the "
            "feedforward model's time.",
        ]
    )  # fmt: skip


def _row(training: Training, given: Assumptions) -> Sequence[str]:
    found = extrapolate(training, given)
    epochs = training.iterations * training.batch / training.images
    hours = found.iteration * training.iterations / 3600
    parts = [f"{seconds:.3f}" for seconds in (found.compute, found.gradients, found.loading, found.iteration)]
    return [training.name, *parts, f"{found.cores:.1f}", f"{hours / epochs:.2f}", f"{epochs:.1f}", f"{hours:.1f}"]
