"""Predict on your own images or videos with a trained run; no data set is needed.

tools/predict.py --run output/panoptic_R18_crbp_toy a.jpg folder/*.png --output out
tools/predict.py --run output/pathfinder a.png --steps 1 5 20 --settling --output out
"""

import argparse
import sys
from pathlib import Path

from crbp_d2.predict.pictures import Predictions, find_inputs, output_folder
from crbp_d2.predict.run_folder import load_run
from crbp_d2.utils.errors import exit_with

# Minimum score of an instance in a picture.
DRAWN_SCORE = 0.5
# Keys of the thresholds by which detectron2's models drop instances.
SCORE_KEYS = (
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST",
    "MODEL.RETINANET.SCORE_THRESH_TEST",
    "MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH",
)


def argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="images, folders of images, video files")
    parser.add_argument("--run", required=True, metavar="DIR", help="OUTPUT_DIR of a training")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the predictions")
    parser.add_argument(
        "--weights", default="", help="default: model_best.pth, model_ema.pth, model_final.pth or the newest checkpoint"
    )
    parser.add_argument("--steps", type=int, nargs="+", default=[], metavar="T", help="a strip over these step counts")
    parser.add_argument("--score", type=float, metavar="S", help="minimum score of an instance, in all that is written "
                        "(default: 0.5 in pictures, the run's own thresholds in --json)")  # fmt: skip
    parser.add_argument("--settling", action="store_true", help="a map of the steps until each pixel settles")
    parser.add_argument(
        "--json", action="store_true", help="COCO results, panoptic JSON and PNGs in addition to the pictures"
    )
    parser.add_argument(
        "--image-info",
        default="",
        metavar="JSON",
        help="take the ids of images for --json from here, by the ends of their paths",
    )
    parser.add_argument("--carry-state", action="store_true",
                        help="start each frame of a video, or image of the list, from the state of the one before "
                             "(semantic heads; images of one size)")  # fmt: skip
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], metavar="KEY VALUE", help="change the config")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Predict on the inputs; one that cannot be used does not stop the others.

    Raises:
        SystemExit: with one line for invalid arguments or files, or one for each input that could not be used.
    """
    parser = argument_parser()
    args = parser.parse_args(arguments)
    if any(t < 1 for t in args.steps):
        parser.error(f"--steps are whole numbers from 1, got {' '.join(map(str, args.steps))}")
    if args.score is not None and not 0 <= args.score <= 1:
        parser.error(f"--score must be in [0, 1], got {args.score}")
    if args.image_info and not args.json:
        parser.error("--image-info needs --json")
    try:
        inputs = find_inputs(args.inputs)
        output_folder(args.output, inputs, args.json, args.image_info)
        scores = [] if args.score is None else [part for key in SCORE_KEYS for part in (key, args.score)]
        cfg, model, metadata = load_run(args.run, args.weights, [*scores, *args.opts])
        settings = {key: getattr(args, key) for key in ("steps", "settling", "json", "image_info", "carry_state")}
        score = DRAWN_SCORE if args.score is None else args.score
        predictions = Predictions(cfg, model, metadata, args.output, score=score, **settings)
    except (OSError, KeyError, ValueError, AssertionError) as error:
        exit_with(error)
    failures = predictions.run(inputs)
    print(f"{len(inputs) - len(failures)} predictions are in {args.output}")
    if failures:
        name = Path(sys.argv[0]).name
        sys.exit("\n".join(f"{name}: {failure}" for failure in failures))
