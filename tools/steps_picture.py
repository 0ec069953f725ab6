"""One picture of several strips that crbp-predict drew, for the README.

python -m tools.steps_picture docs/pictures/steps.png out/scene.png out/contour.png
"""

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np

from crbp_d2.utils.files import write_atomically

WIDTH, GAP = 1440, 6


def stack(strips: list[np.ndarray], width: int = WIDTH) -> np.ndarray:
    """Strips (H x W x 3) under each other, each resized to a width in pixels, white between them."""
    scaled = [cv2.resize(s, (width, round(len(s) * width / s.shape[1])), interpolation=cv2.INTER_AREA) for s in strips]
    gap = np.full((GAP, width, 3), 255, np.uint8)
    return np.concatenate([part for strip in scaled for part in (gap, strip)][1:])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path, help="to write")
    parser.add_argument("strips", type=Path, nargs="+", help="pictures of crbp-predict --steps")
    args = parser.parse_args(arguments)
    strips = [cv2.imread(str(path)) for path in args.strips]
    if missing := [path for path, strip in zip(args.strips, strips, strict=True) if strip is None]:
        sys.exit(f"steps_picture: {missing[0]} is no picture")
    args.picture.parent.mkdir(parents=True, exist_ok=True)
    content = cv2.imencode(".png", stack(strips), [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes()
    write_atomically(args.picture, lambda file: file.write(content))


if __name__ == "__main__":
    main()
