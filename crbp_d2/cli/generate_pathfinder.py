"""Write the stimuli of a Pathfinder data set; the same command resumes after a kill.

tools/generate_pathfinder.py --spec PF14 --train 180000 --val 20000 --seed 0 --workers 8
tools/train_net.py --config-file configs/pathfinder/PF14_hgru_crbp.yaml
"""

import argparse
import os
from functools import partial
from pathlib import Path

from tqdm import tqdm

from crbp_d2.data.pathfinder.dataset import COUNTS, SMALL, default_folder, split_of
from crbp_d2.data.pathfinder.files import PER_FILE, write_split
from crbp_d2.data.pathfinder.spec import SPECS
from crbp_d2.utils.errors import exit_with

PAPER_COUNTS = {"train": 180_000, "val": 20_000}


def argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spec", choices=SPECS, required=True)
    for split in COUNTS:
        usual = f"default {PAPER_COUNTS[split]}, of the small specs {COUNTS[split]}"
        parser.add_argument(f"--{split}", type=int, metavar="N", help=f"stimuli for {split}, 0 for none ({usual})")
    parser.add_argument("--seed", type=int, default=0, help="of all stimuli (default 0)")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes (default: one a core)")
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: $DETECTRON2_DATASETS/pathfinder/SPEC")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Raises SystemExit with one line on a folder with other content, or one that cannot be written."""
    parser = argument_parser()
    args = parser.parse_args(arguments)
    defaults = COUNTS if args.spec in SMALL else PAPER_COUNTS
    counts = {split: getattr(args, split) if getattr(args, split) is not None else defaults[split] for split in COUNTS}
    if min(*counts.values(), args.seed) < 0 or args.workers < 1:
        parser.error("counts and seed must be at least 0, workers at least 1")
    folder = args.output or default_folder(args.spec)
    try:
        for split, count in counts.items():
            if count:
                content = split_of(SPECS[args.spec], split, args.seed, count)
                bar = partial(tqdm, desc=f"{args.spec} {split}, archives of {PER_FILE}")
                write_split(folder / split, content, args.workers, bar)
    except (OSError, ValueError) as error:
        exit_with(error)
    print(f"{folder}: " + ", ".join(f"{count} stimuli in {split}" for split, count in counts.items() if count))
