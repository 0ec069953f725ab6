"""Predict on your own pictures or videos with a trained run; no data set is needed.

tools/predict.py --run output/panoptic_R18_crbp_toy a.jpg folder/*.png --output out
tools/predict.py --run output/pathfinder a.png --steps 1 5 20 --settling --output out
"""

import argparse
import sys
from pathlib import Path

from crbp_d2.engine.predictions import Predictions, find_inputs
from crbp_d2.engine.run_folder import load_run


def argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="pictures, folders of pictures, video files")
    parser.add_argument("--run", required=True, metavar="DIR", help="OUTPUT_DIR of a training")
    parser.add_argument("--output", required=True, metavar="DIR", help="where the pictures go")
    parser.add_argument(
        "--weights", default="", help="default: model_best.pth, model_final.pth or the newest checkpoint"
    )
    parser.add_argument("--steps", type=int, nargs="+", default=[], metavar="T", help="a strip over these step counts")
    parser.add_argument("--score", type=float, default=0.5, help="least score of an instance (default 0.5)")
    parser.add_argument("--settling", action="store_true", help="a map of the steps until each pixel settles")
    parser.add_argument("--json", action="store_true", help="COCO results, panoptic JSON and PNGs beside the pictures")
    parser.add_argument("--image-info", default="", metavar="JSON", help="take the ids of images for --json from here")
    parser.add_argument("--carry-state", action="store_true",
                        help="start each frame of a video, or picture of the list, from the state of the one before "
                             "(semantic heads; pictures of one size)")  # fmt: skip
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], metavar="KEY VALUE", help="change the config")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Raises SystemExit with one line on what is wrong; pictures that cannot be read do not stop the others."""
    parser = argument_parser()
    args = parser.parse_args(arguments)
    if any(t < 1 for t in args.steps):
        parser.error(f"--steps are whole numbers from 1, got {' '.join(map(str, args.steps))}")
    if not 0 <= args.score <= 1:
        parser.error(f"--score lies in [0, 1], got {args.score}")
    if args.image_info and not args.json:
        parser.error("--image-info goes with --json")
    name = Path(sys.argv[0]).name
    try:
        inputs = find_inputs(args.inputs)
        cfg, model, metadata = load_run(args.run, args.weights, args.opts)
        predictions = Predictions(
            cfg,
            model,
            metadata,
            args.output,
            steps=args.steps,
            score=args.score,
            settling=args.settling,
            json=args.json,
            image_info=args.image_info,
            carry_state=args.carry_state,
        )
    except (OSError, KeyError, ValueError, AssertionError) as error:
        text = error.args[0] if isinstance(error, KeyError) else error
        sys.exit(f"{name}: {' '.join(str(text).split())}")
    failures = predictions.run(inputs)
    print(f"{len(inputs) - len(failures)} predictions are in {args.output}")
    if failures:
        sys.exit("\n".join(f"{name}: {failure}" for failure in failures))
