"""What evaluations of panoptic models left, for the page of results: figures, and pictures side by side."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from detectron2.config import CfgNode
from numpy import ndarray

from crbp_d2.evaluation.drawing import title
from crbp_d2.evaluation.per_step.report import HEADINGS, draw_steps
from crbp_d2.utils.files import write_text
from tools.page import machine

# Where results are kept, relative to the repository, and the folders there, each with what an evaluation wrote into
# OUTPUT_DIR/inference/<data set>.
RESULTS = Path("tools/pathfinder_study/results")
TOY, TOY_BASELINE, TWO_IMAGES = "panoptic_toy", "panoptic_toy_baseline", "panoptic_two_images"
SIDE_BY_SIDE = "side_by_side"
# Of a picture that is kept, in pixels at most: that of a page.
WIDTH = 1200
FIGURES = (("PQ", "PQ"), ("PQ_th", "PQ things"), ("PQ_st", "PQ stuff"))


def collect_results(evaluation: Path, folder: Path) -> None:
    """Keep the panoptic figures of an evaluation, at each step if there are any, and the machine they are from.

    Args:
        evaluation: OUTPUT_DIR/inference/<data set>, on the machine that evaluated.
        folder: RESULTS / TOY, RESULTS / TOY_BASELINE or RESULTS / TWO_IMAGES.

    Raises:
        FileNotFoundError: nothing was evaluated there.
    """
    if not (evaluation / "results.json").exists():
        raise FileNotFoundError(f"there is no {evaluation / 'results.json'}; tools/train_net.py --eval-only leaves one")
    folder.mkdir(parents=True, exist_ok=True)
    values = json.loads((evaluation / "results.json").read_text())["panoptic_seg"]
    kept = {"panoptic_seg": {key: values[key] for key, _ in FIGURES}, "machine": machine()}
    write_text(folder / "results.json", json.dumps(kept, indent=1) + "\n")
    steps = folder / "quality_per_step.csv"
    if (evaluation / steps.name).exists():
        write_text(steps, (evaluation / steps.name).read_text())
    else:
        # That of an earlier evaluation would be of another model.
        steps.unlink(missing_ok=True)


def read_results(folder: Path) -> tuple[dict[str, float], str] | None:
    """Panoptic figures of `folder`/results.json in percent by their titles, and the machine; or None.

    Raises:
        ValueError: the file is broken.
    """
    path = folder / "results.json"
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text())
        return {heading: float(content["panoptic_seg"][key]) for key, heading in FIGURES}, content["machine"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} holds no panoptic results ({error!r}); evaluate the model again") from error


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
    """N of a config, relative to `root`, that says its steps."""
    return CfgNode.load_yaml_with_base(str(root / config))["MODEL"]["RECURRENCE"]["STEPS"]


def draw_toy_steps(results: Path, folder: Path, marked: int) -> bool:
    """Panoptic quality per step of the toy model as panoptic_toy.png and .csv; False where it is not there.

    Args:
        results: folder of TOY.
        marked: steps that the model was trained with.
    """
    path = results / TOY / "quality_per_step.csv"
    if not path.exists():
        return False
    draw_steps(read_steps(path), str(folder / "panoptic_toy.png"), marked)
    write_text(folder / "panoptic_toy.csv", path.read_text())
    return True


def side_by_side(left: ndarray, right: ndarray, labels: tuple[str, str]) -> ndarray:
    """input | ground truth | prediction of one model | that of another, of the same image.

    Args:
        left, right: pictures that PanopticPictures wrote, of three panels of equal width; H x W x 3.
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
    """What `write_side_by_side` left in a folder of the repository's results."""
    return sorted((root / RESULTS / name / SIDE_BY_SIDE).glob("*.jpg"))


def write_side_by_side(folders: Mapping[str, Path], target: Path, count: int = 4) -> list[Path]:
    """`side_by_side` of the first `count` pictures that two folders both have, as JPEGs at most WIDTH wide.

    Args:
        folders: label -> folder of pictures, of two models.
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
