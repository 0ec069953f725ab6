"""Results of evaluated panoptic models, kept for the page of results: metrics, and pictures side by side."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from detectron2.config import CfgNode
from numpy import ndarray

from crbp_d2.evaluation.drawing import title
from crbp_d2.evaluation.per_step.report import HEADINGS
from crbp_d2.utils.files import write_text
from tools.page import machine

# Folder of the results, relative to the repository, and its folders of one evaluation each.
RESULTS = Path("tools/pathfinder_study/results")
TOY, TOY_BASELINE, TWO_IMAGES = "panoptic_toy", "panoptic_toy_baseline", "panoptic_two_images"
SIDE_BY_SIDE = "side_by_side"
# Maximum width of a kept picture, px.
WIDTH = 1200
METRICS = (("PQ", "PQ"), ("PQ_th", "PQ things"), ("PQ_st", "PQ stuff"))


def collect_results(evaluation: Path, folder: Path) -> None:
    """Keep the panoptic metrics of an evaluation, those of each step where they exist, and the name of this machine.

    Args:
        evaluation: OUTPUT_DIR/inference/<data set>, on the machine that evaluated.
        folder: target, below RESULTS.

    Raises:
        FileNotFoundError: `evaluation` has no results.
    """
    if not (evaluation / "results.json").exists():
        raise FileNotFoundError(f"there is no {evaluation / 'results.json'}; tools/train_net.py --eval-only leaves one")
    folder.mkdir(parents=True, exist_ok=True)
    values = json.loads((evaluation / "results.json").read_text())["panoptic_seg"]
    kept = {"panoptic_seg": {key: values[key] for key, _ in METRICS}, "machine": machine()}
    write_text(folder / "results.json", json.dumps(kept, indent=1) + "\n")
    steps = folder / "quality_per_step.csv"
    if (evaluation / steps.name).exists():
        write_text(steps, (evaluation / steps.name).read_text())
    else:
        # An earlier evaluation had another model.
        steps.unlink(missing_ok=True)


def read_results(folder: Path) -> tuple[dict[str, float], str] | None:
    """Panoptic metrics of `folder`/results.json in percent by title, and the machine; None without the file.

    Raises:
        ValueError: a broken file.
    """
    path = folder / "results.json"
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text())
        return {heading: float(content["panoptic_seg"][key]) for key, heading in METRICS}, content["machine"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} has no valid panoptic results ({error!r}); evaluate the model again") from error


def read_steps(path: Path) -> dict[str, ndarray]:
    """Columns of quality_per_step.csv (see steps_report), nan where empty.

    Raises:
        ValueError: a column is missing.
    """
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    missing = [heading for heading in HEADINGS.values() if not lines or heading not in lines[0]]
    if missing:
        raise ValueError(f"{path} has no column {missing[0]!r}; evaluate the model again")
    columns = {name: np.array([float(line[heading] or "nan") for line in lines]) for name, heading in HEADINGS.items()}
    return columns | {"t": columns["t"].astype(np.int64)}


def trained_steps(config: str, root: Path) -> int:
    """N of a config, a path relative to `root`, that sets its steps."""
    return CfgNode.load_yaml_with_base(str(root / config))["MODEL"]["RECURRENCE"]["STEPS"]


def side_by_side(left: ndarray, right: ndarray, labels: tuple[str, str]) -> ndarray:
    """input | ground truth | prediction of one model | that of another, of the same image.

    Args:
        left, right: pictures written by PanopticPictures, three panels of equal width; H x W x 3.
        labels: titles of the two predictions.

    Raises:
        ValueError: pictures of different sizes.
    """
    if left.shape != right.shape or left.shape[1] % 3:
        raise ValueError(f"pictures must have one size and three panels, got {left.shape} and {right.shape}")
    width, strip = left.shape[1] // 3, title(left[:1], "").shape[0] - 1
    pairs = zip((left, right), labels, strict=True)
    predictions = [title(picture[strip:, 2 * width :].copy(), label) for picture, label in pairs]
    return np.concatenate([left[:, : 2 * width], *predictions], axis=1)


def kept_pictures(name: str, root: Path) -> list[Path]:
    """The pictures of `write_side_by_side` in a folder of the repository's results."""
    return sorted((root / RESULTS / name / SIDE_BY_SIDE).glob("*.jpg"))


def write_side_by_side(folders: Mapping[str, Path], target: Path, count: int = 4) -> list[Path]:
    """Write `side_by_side` of the first `count` pictures that two folders have in common as JPEGs.

    Args:
        folders: label -> folder of pictures, two models.
    """
    (left, right), labels = folders.values(), tuple(folders)
    names = sorted({path.name for path in left.glob("*.png")} & {path.name for path in right.glob("*.png")})[:count]
    target.mkdir(parents=True, exist_ok=True)
    for old in target.glob("*.jpg"):
        old.unlink()
    written = []
    for name in names:
        joined = side_by_side(cv2.imread(str(left / name)), cv2.imread(str(right / name)), labels)
        width = min(joined.shape[1], WIDTH)
        size = (width, round(joined.shape[0] * width / joined.shape[1]))
        path = target / f"{Path(name).stem}.jpg"
        cv2.imwrite(str(path), cv2.resize(joined, size, interpolation=cv2.INTER_AREA))
        written.append(path)
    return written
