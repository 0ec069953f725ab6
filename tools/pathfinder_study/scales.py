"""The study's scale next to the paper's, from records and configs, and the cost of the paper's."""

import re
from dataclasses import dataclass
from pathlib import Path

from fvcore.common.config import CfgNode

from crbp_d2.data.pathfinder.spec import SPECS

from .records import Record, Study


@dataclass(frozen=True)
class Scale:
    """image: side in px. dashes: a contour's. kernel: side. steps: N, None without a recurrence."""

    image: int
    dashes: int
    channels: int
    kernel: int
    batch: int
    iterations: int
    steps: int | None


def ours(record: Record, study: Study) -> Scale:
    spec = SPECS[study.specs[0]]
    return Scale(
        spec.image_size,
        spec.dashes,
        record.channels,
        record.kernel_size,
        record.batch,
        record.iterations,
        record.steps,
    )


def papers(config: str, root: Path) -> Scale:
    """The scale of the PF14 config of the same name, or of the base config if it is missing."""
    path = root / "configs/pathfinder" / re.sub("^[^_]+", "PF14", Path(config).name)
    if not path.exists():
        path = root / "configs/bases/pathfinder.yaml"
    content = CfgNode.load_yaml_with_base(str(path))
    model, solver, spec = content["MODEL"], content["SOLVER"], SPECS["PF14"]
    feedforward = model["SEM_SEG_HEAD"]["NAME"] == "FeedforwardContourHead"
    return Scale(
        spec.image_size,
        spec.dashes,
        model["CONTOUR"]["CHANNELS"],
        model["RECURRENCE"]["CELL"]["KERNEL_SIZE"],
        solver["IMS_PER_BATCH"],
        solver["MAX_ITER"],
        None if feedforward else model["RECURRENCE"]["STEPS"],
    )


def cost_factor(small: Scale, large: Scale) -> float:
    """Ratio of the times of an iteration, in proportion to images, pixels, squared channels and steps.

    The kernel's extent does not count, as large convolutions use Fourier transforms.
    """
    steps = large.steps / small.steps if small.steps and large.steps else 1.0
    return (
        (large.batch / small.batch)
        * (large.image / small.image) ** 2
        * (large.channels / small.channels) ** 2
        * steps
    )  # fmt: skip
