"""Scores of a study's checkpoints on new stimuli, compared with those of its summary."""

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.engine import default_argument_parser

from crbp_d2.engine.setup import setup
from crbp_d2.engine.trainer import Trainer

from .run_measures import first_batches, held_out_set, quality_by_step
from .runs import Scale


@dataclass(frozen=True)
class Check:
    """F1 of a checkpoint after `steps` (0 for a model without steps), as reported and on new stimuli.

    nan: the run has diverged. tolerance: see Scale.
    """

    name: str
    spec: str
    steps: int
    reported: float
    found: float
    tolerance: float

    @property
    def holds(self) -> bool:
        if math.isnan(self.reported) or math.isnan(self.found):
            return math.isnan(self.reported) and math.isnan(self.found)
        return abs(self.found - self.reported) <= self.tolerance


def check_checkpoints(
    scale: Scale,
    root: Path,
    seed: int,
    output: Path,
    only: Sequence[str] | None = None,
    max_steps: int | None = None,
) -> Iterator[Check]:
    """Evaluate every checkpoint in the scale's summary.json, on as many stimuli as the reported scores.

    Args:
        root: repository root of the paths in the summary.
        seed: seed of the stimuli.
        output: folder for detectron2's own files.
        only: names of runs or of checkpoints; default all.
        max_steps: skip scores after more steps.

    Raises:
        ValueError: `seed` is the one of the reported stimuli.
        FileNotFoundError: the summary or a file it names is missing.
    """
    if seed == scale.test_seed:
        raise ValueError(f"the reported scores are those of seed {seed}: choose another one")
    summary = root / scale.folder / "summary.json"
    if not summary.exists():
        raise FileNotFoundError(f"{summary.resolve()} is missing; python -m tools.pathfinder_study --report writes it")
    for entry in json.loads(summary.read_text())["checkpoints"]:
        stem = Path(entry["checkpoint"]).stem
        if not only or stem in only or re.sub(r"_s\d+$", "", stem) in only:
            reported = [row for row in entry["reported"] if max_steps is None or row["steps"] <= max_steps]
            yield from _check({**entry, "reported": reported}, scale, root, seed, output)


def _check(entry: dict, scale: Scale, root: Path, seed: int, output: Path) -> Iterator[Check]:
    flags = ["--config-file", str(root / entry["config"]), "--eval-only", "OUTPUT_DIR", str(output)]
    cfg = setup(default_argument_parser().parse_args(flags))
    checkpoint = root / entry["checkpoint"]
    if not checkpoint.exists():
        raise FileNotFoundError(f"{checkpoint.resolve()} is missing, but the summary names it")
    model = Trainer.build_model(cfg).eval()
    DetectionCheckpointer(model).load(str(checkpoint))
    for spec in dict.fromkeys(row["spec"] for row in entry["reported"]):
        rows = [row for row in entry["reported"] if row["spec"] == spec]
        name = held_out_set(spec, scale.specs[spec], seed)
        steps = tuple(row["steps"] for row in rows if row["steps"])
        scores = quality_by_step(model, first_batches(cfg, name, scale.specs[spec]), name, steps)
        for row, found in zip(rows, scores, strict=True):
            reported = math.nan if row["f1"] is None else row["f1"]
            yield Check(entry["name"], spec, row["steps"], reported, found, scale.tolerance)
