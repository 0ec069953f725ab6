"""Draw docs/pictures/steps.png: the masks of a toy scene and a traced contour over the steps of a recurrence.

python -m tools.steps_picture

Both models are committed: a small Panoptic FPN with a recurrent mask head, and a network for contours of 6 dashes.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch

from crbp_d2.data import generate_pathfinder
from crbp_d2.data.panoptic.toy import draw_scene
from crbp_d2.data.pathfinder.dataset import SPLIT_SEEDS
from crbp_d2.evaluation.drawing import resize, side_by_side
from crbp_d2.predict.pictures import Predictions
from crbp_d2.predict.run_folder import load_run
from crbp_d2.utils.files import write_atomically
from tools.pathfinder_study.records import load_study
from tools.pathfinder_study.runs import SCALES
from tools.pathfinder_study.unrolling import BATCH, load_model, overlay, probabilities

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs/pictures/steps.png"
# The folder of a run with config, class names and weights, matrices and kernels in half precision.
SCENE_RUN = ROOT / "tools/pathfinder_study/results/panoptic_steps"
SCENE, SCENE_SIDE, SCENE_STEPS = (0, 1, 2), 128, (1, 2, 3, 5, 10)
CONTOUR_RUN, CONTOUR, CONTOUR_STEPS = "hgru_progressive_far", "PF12s", (1, 3, 6, 12, 24)
WIDTH, GAP = 1440, 6


def scene_strip() -> np.ndarray:
    """Input and panoptic predictions after each of SCENE_STEPS, RGB."""
    cfg, model, metadata = load_run(str(SCENE_RUN))
    image = draw_scene(SCENE, SCENE_SIDE).image
    return Predictions(cfg, model, metadata, str(SCENE_RUN), steps=SCENE_STEPS).predict(image[..., ::-1])[0]


def contour_strip() -> np.ndarray:
    """Input and the target's probability after each of CONTOUR_STEPS, RGB."""
    record = load_study(ROOT / SCALES["small"].folder / "runs").first(CONTOUR_RUN)
    images, _ = generate_pathfinder(CONTOUR, BATCH, (0, SPLIT_SEEDS["val"]))
    found = probabilities(load_model(record, ROOT), images, CONTOUR_STEPS)
    panels = {"input": np.repeat(images[0][..., None], 3, axis=2)}
    panels |= {f"t = {t}": overlay(images[0], p) for t, p in zip(CONTOUR_STEPS, found, strict=True)}
    return side_by_side({title: resize(panel) for title, panel in panels.items()})


def stack(strips: list[np.ndarray], width: int = WIDTH) -> np.ndarray:
    """Strips (H x W x 3) one below the other, each resized to `width` pixels, with white gaps."""
    scaled = [cv2.resize(s, (width, round(len(s) * width / s.shape[1])), interpolation=cv2.INTER_AREA) for s in strips]
    gap = np.full((GAP, width, 3), 255, np.uint8)
    return np.concatenate([part for strip in scaled for part in (gap, strip)][1:])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args(arguments)
    with torch.no_grad():
        picture = stack([scene_strip(), contour_strip()])
    content = cv2.imencode(".png", picture[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes()
    write_atomically(PICTURE, lambda file: file.write(content))


if __name__ == "__main__":
    main()
