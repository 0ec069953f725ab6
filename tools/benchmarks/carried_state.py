"""Agreement of a RecurrentSemSegHead on a video with and without the state carried from frame to frame.

python -m tools.benchmarks.carried_state --run output/panoptic_R18_recurrent_toy PICTURE

The video is synthetic: a window of three quarters of the picture that moves by a pixel a frame. The table gives the
fraction of pixels whose class is that after many steps, from the initial state and from the carried one.
"""

import argparse
from collections.abc import Sequence

import cv2
import numpy as np

from crbp_d2.predict.predictor import Predictor, carried_states
from crbp_d2.predict.run_folder import load_run
from tools.page import machine, markdown_table

FRAMES = 12
REFERENCE = 40
STEPS = (1, 2, 3, 5, 8, 10)


def moving_window(image: np.ndarray, frames: int = FRAMES) -> list[np.ndarray]:
    """Windows of an image, each a pixel further to the right and half a pixel down."""
    height, width = (side * 3 // 4 for side in image.shape[:2])
    return [image[k // 2 : k // 2 + height, k : k + width] for k in range(min(frames, image.shape[1] - width))]


def agreement(predictor: Predictor, frames: Sequence[np.ndarray], steps: int) -> tuple[float, float]:
    """Mean fraction of pixels with the class of REFERENCE steps, without and with the carried state; not of frame 1."""

    def labels(t: int) -> list[np.ndarray]:
        return [predictor(frame, t)["sem_seg"].argmax(dim=0).cpu().numpy() for frame in frames]

    reference, cold = labels(REFERENCE), labels(steps)
    with carried_states(predictor.model):
        warm = labels(steps)
    first, second = (
        float(np.mean([np.mean(a == b) for a, b in zip(reference[1:], found[1:], strict=True)]))
        for found in (cold, warm)
    )
    return first, second


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture")
    parser.add_argument("--run", required=True, metavar="DIR", help="OUTPUT_DIR of a training")
    args = parser.parse_args(arguments)
    cfg, model, _ = load_run(args.run)
    frames = moving_window(cv2.imread(args.picture))
    rows = []
    for steps in STEPS:
        cold, warm = agreement(Predictor(cfg, model), frames, steps)
        rows.append([steps, f"{cold:.1%}", f"{warm:.1%}"])
    print(f"{machine()}\n\n{markdown_table(['steps a frame', 'from the initial state', 'carried'], rows)}")


if __name__ == "__main__":
    main()
