"""Keep the results of our own panoptic models, which `python -m tools.pathfinder_study --report` reads.

python -m tools.pathfinder_study.collect --toy output/panoptic_R18_crbp_toy --baseline output/panoptic_R18_baseline_toy
python -m tools.pathfinder_study.collect --two-images output/panoptic_R50_crbp_overfit
"""

import argparse
import sys
from pathlib import Path

from .panoptic_results import (
    RESULTS,
    SIDE_BY_SIDE,
    TOY,
    TOY_BASELINE,
    TWO_IMAGES,
    collect_results,
    write_side_by_side,
)

ROOT = Path(__file__).resolve().parents[2]
PANOPTIC_SETS = {
    TOY: "toy_panoptic_val",
    TOY_BASELINE: "toy_panoptic_val",
    TWO_IMAGES: "coco_2017_val_panoptic_separated",
}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toy", type=Path, dest=TOY, metavar="OUTPUT_DIR", help="recurrent toy model")
    parser.add_argument("--baseline", type=Path, dest=TOY_BASELINE, metavar="OUTPUT_DIR", help="feedforward toy model")
    parser.add_argument("--two-images", type=Path, dest=TWO_IMAGES, metavar="OUTPUT_DIR")
    outputs = {name: output for name, output in vars(parser.parse_args(arguments)).items() if output}
    if not outputs:
        parser.error("name at least one OUTPUT_DIR")
    evaluations = {name: output / "inference" / PANOPTIC_SETS[name] for name, output in outputs.items()}
    try:
        for name, evaluation in evaluations.items():
            collect_results(evaluation, ROOT / RESULTS / name)
            print(f"kept: {ROOT / RESULTS / name}")
    except FileNotFoundError as error:
        sys.exit(f"{error}")
    if {TOY, TOY_BASELINE} <= evaluations.keys():
        folders = {"feedforward": evaluations[TOY_BASELINE] / "pictures", "recurrent": evaluations[TOY] / "pictures"}
        target = ROOT / RESULTS / TOY / SIDE_BY_SIDE
        print(f"{len(write_side_by_side(folders, target))} pictures side by side: {target}")


if __name__ == "__main__":
    main()
