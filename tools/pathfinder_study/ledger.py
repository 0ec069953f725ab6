"""The ledger: each figure of the paper beside ours.

N: steps trained with.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .comparisons import TRAINED
from .figure_style import name_of
from .panoptic_results import RESULTS, TOY, TOY_BASELINE, TWO_IMAGES, read_results
from .paper import PANOPTIC, PANOPTIC_BY_STEP, PANOPTIC_PARTS, PATHFINDER_F1, PATHFINDER_F1_FAR, TRAINING_TIME_RATIO
from .records import Study

TOY_STEPS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 18, 20, 25, 30, 40)
STUDY_COMMAND = "python -m tools.pathfinder_study"
LONGER_NOTE = (
    "Trained on the longer contours themselves: `tools/train_net.py --config-file configs/pathfinder/PF14_<run>.yaml "
    "--num-gpus 8 DATASETS.TRAIN \"('pathfinder_PF20_train',)\" DATASETS.TEST \"('pathfinder_PF20_val',)\"`, "
    "`<run>` as in the rows above; C-RBP by `configs/pathfinder/PF20_hgru_crbp.yaml` and `PF25_hgru_crbp.yaml`, with "
    "30 and 80 steps."
)


@dataclass(frozen=True)
class Row:
    """figure: stem of a figure of the study, or "". command: as typed, or a note."""

    quantity: str
    paper: str
    ours: str
    figure: str
    command: str


def pathfinder_rows(study: Study, earlier: Study) -> list[Row]:
    """F1 at N and past it; of a run that has no record yet, that of `earlier`, marked as such."""
    rows = [
        Row(
            f"F1 on the trained contours at N, {_model(run)}",
            f"{PATHFINDER_F1[run][0]:.4f}",
            _cell(study, earlier, run, 1),
            "scores" if study[run] else "",
            f"{STUDY_COMMAND} --only {run}",
        )
        for run in PATHFINDER_F1
    ]
    rows += [
        Row(
            f"F1 on the trained contours, far past N (paper: t = 40; ours: 4 N), {_model(run)}",
            f"{far:.2f}",
            _cell(study, earlier, run, 4),
            "quality_per_step" if study[run] else "",
            f"{STUDY_COMMAND} --only {run}",
        )
        for run, far in PATHFINDER_F1_FAR.items()
    ]
    for run, (_, middle, long) in PATHFINDER_F1.items():
        if middle is not None:
            row = f"F1 on PF20, PF25 after training on them, {_model(run)}", f"{middle:.4f}, {long:.4f}"
            rows.append(Row(*row, "-", "", "note"))
    return rows


def _cell(study: Study, earlier: Study, run: str, multiple: int) -> str:
    if study[run] or not earlier[run]:
        return seeds_cell([record.f1(TRAINED, multiple) for record in study[run]])
    first = earlier.first(run)
    cell = seeds_cell([record.f1(TRAINED, multiple) for record in earlier[run]])
    return f"{cell}, after {first.iterations:,} iterations"


def panoptic_rows() -> list[Row]:
    """COCO val2017: nothing of it is measured by the study."""
    rows = []
    for config, (quality, _, memory) in PANOPTIC.items():
        parts = PANOPTIC_PARTS.get(config)
        text = f"{quality:.2f}" + (f" (things {parts[0]:.2f}, stuff {parts[1]:.2f})" if parts else "")
        text += f", {memory} MB a GPU" if memory else ""
        command = f"tools/train_net.py --config-file configs/{config}.yaml --num-gpus 8"
        rows.append(Row(f"PQ on COCO val2017, {config}", text, "-", "", command))
    steps = (9, 10, 12, 15, 20, 23)
    text = ", ".join(f"{PANOPTIC_BY_STEP[t]:g} (t = {t})" for t in steps)
    command = (
        "tools/train_net.py --config-file configs/panoptic_R50_crbp.yaml --eval-only MODEL.WEIGHTS "
        f'output/panoptic_R50_crbp/model_final.pth TEST.STEPS_TO_EVALUATE "{steps}"'
    )
    rows.append(Row("PQ on COCO val2017 by step, panoptic_R50_crbp", text, "-", "", command))
    ratio = f"about {TRAINING_TIME_RATIO:g}"
    # The ratio of whole models on COCO; what a step of ours takes on a processor is another quantity.
    rows.append(Row("training time, C-RBP 20 steps over feedforward", ratio, "-", "", "the two configs above"))
    return rows


def own_panoptic_rows(root: Path) -> list[list[str]]:
    """Our own panoptic runs, which the paper has no counterpart of: what, figures, command, machine."""
    train = "tools/train_net.py --config-file configs/quick"
    evaluate = f"`{train}/panoptic_R18_crbp_toy.yaml --eval-only MODEL.WEIGHTS output/panoptic_R18_crbp_toy"
    runs = (
        (
            TOY,
            "toy scenes, 50 unseen ones, R-18, C-RBP 10 steps",
            f'`make demo`; by step: {evaluate}/model_final.pth TEST.STEPS_TO_EVALUATE "{TOY_STEPS}"`',
        ),
        (
            TOY_BASELINE,
            "the same scenes, R-18, four feedforward mask convolutions",
            f"`{train}/panoptic_R18_baseline_toy.yaml`",
        ),
        (
            TWO_IMAGES,
            "two COCO images, R-50, C-RBP 20 steps, trained and tested on the same",
            f"`{train}/panoptic_R50_crbp_overfit.yaml`",
        ),
    )
    rows = []
    for folder, what, command in runs:
        values, place = read_results(root / RESULTS / folder) or ({}, "-")
        text = ", ".join(f"{name} {value:.2f}" for name, value in values.items())
        rows.append([what, text or "-", command, place])
    return rows


def seeds_cell(values: Sequence[float], digits: int = 3, counted: bool = True) -> str:
    """Mean, with the seeds' range where there are several, and by default their number."""
    if not values or not all(map(math.isfinite, values)):
        return "-"
    mean = sum(values) / len(values)
    if len(values) == 1:
        return f"{mean:.{digits}f}"
    count = f", {len(values)} seeds" if counted else ""
    return f"{mean:.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f}{count})"


def _model(run: str) -> str:
    return f"hGRU, {name_of(run)}" if run.startswith("hgru_") else name_of(run)
