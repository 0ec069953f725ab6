"""Soak tests, each with a count and a seed; started again, one resumes where it was stopped.

python -m tools.soak kills --count 100 --seed 0
python -m tools.soak checkpoints --count 40 --seed 0
python -m tools.soak archives --count 6000 --seed 0
python -m tools.soak growth --count 300              (iterations of each training)
"""

import argparse
import json
import sys
from importlib import import_module
from pathlib import Path

from .record import Record

# Modules with `soak(count, seed, folder, record) -> dict of counts`; the counts named here must be 0.
SUBJECTS = {"kills": "differences", "checkpoints": "lost runs", "archives": "raw errors", "growth": "growing"}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("subject", choices=SUBJECTS)
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("output/soak"), help="folder for runs and results")
    args = parser.parse_args(arguments)
    folder = args.output / f"{args.subject}_{args.seed}"
    folder.mkdir(parents=True, exist_ok=True)
    record = Record(folder / "results.jsonl")
    figures = import_module(f"tools.soak.{args.subject}").soak(args.count, args.seed, folder, record)
    print(json.dumps(figures))
    if figures[SUBJECTS[args.subject]]:
        sys.exit(1)


if __name__ == "__main__":
    main()
