"""Whether the checkpoints of a study score on new stimuli what its summary reports."""

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

from .run_measures import quality_by_step
from .runs import Scale
from .stimuli import first_batches, held_out_set


@dataclass(frozen=True)
class Check:
    """F1 of a checkpoint after `steps` (0: a model without steps), as reported and on new stimuli.

    nan: the run has diverged by then. tolerance: see Scale.
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
    most_steps: int | None = None,
) -> Iterator[Check]:
    """Evaluate every checkpoint in the scale's summary.json by its config, on as many stimuli as are reported on.

    Args:
        root: that paths in the summary are relative to.
        seed: of the stimuli.
        output: folder for detectron2's own files.
        only: names of runs, or of checkpoints; default all.
        most_steps: leave out what is reported after more steps.

    Raises:
        ValueError: `seed` is that of the reported stimuli.
        FileNotFoundError: no summary, or a file that it names is missing.
    """
    if seed == scale.test_seed:
        raise ValueError(f"the reported figures are of seed {seed}; stimuli of another seed are needed")
    summary = root / scale.folder / "summary.json"
    if not summary.exists():
        raise FileNotFoundError(f"there is no {summary.resolve()}; python -m tools.pathfinder_study --report writes it")
    for entry in json.loads(summary.read_text())["checkpoints"]:
        stem = Path(entry["checkpoint"]).stem
        if not only or stem in only or re.sub(r"_s\d+$", "", stem) in only:
            reported = [row for row in entry["reported"] if most_steps is None or row["steps"] <= most_steps]
            yield from _check({**entry, "reported": reported}, scale, root, seed, output)


def _check(entry: dict, scale: Scale, root: Path, seed: int, output: Path) -> Iterator[Check]:
    flags = ["--config-file", str(root / entry["config"]), "--eval-only", "OUTPUT_DIR", str(output)]
    cfg = setup(default_argument_parser().parse_args(flags))
    checkpoint = root / entry["checkpoint"]
    if not checkpoint.exists():
        raise FileNotFoundError(f"{checkpoint.resolve()}, which the summary names, is missing")
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
