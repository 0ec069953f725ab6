"""Train and test the toy panoptic models on the harder scenes, by every rule and with three seeds.

What is there is not run again, and a run that was killed is resumed. Of each run its panoptic quality after each of 30
steps is kept in tools/pathfinder_study/results/panoptic_hard, of each rule what its model and training step cost.

python -m tools.pathfinder_study.panoptic_runs                                # what is missing
python -m tools.pathfinder_study.panoptic_runs --only progressive --seeds 0   # one run
python -m tools.pathfinder_study.panoptic_runs --pictures 1                   # of this seed's models, side by side
"""

import argparse
import subprocess
import sys
from pathlib import Path

from .harder_scenes import BASELINE, BEST, PICTURES, RULES, SEEDS, config_of, kept
from .panoptic_costs import keep_costs
from .panoptic_results import collect_results, write_side_by_side

ROOT = Path(__file__).resolve().parents[2]
STEPS = tuple(range(1, 31))
TEST_SET = "toy_panoptic_hard_val"


def output_of(rule: str, seed: int) -> Path:
    return ROOT / f"output/panoptic_hard/{rule}_s{seed}"


def command(rule: str, seed: int, output: Path) -> list[str]:
    """That trains and tests one run; a feedforward head has no steps."""
    steps = () if rule == BASELINE else STEPS
    places = ["OUTPUT_DIR", str(output), "SEED", str(seed), "TEST.STEPS_TO_EVALUATE", str(steps)]
    return [sys.executable, "tools/train_net.py", "--config-file", config_of(rule), "--resume", *places]


def put_side_by_side(seed: int) -> None:
    """Keep pictures of what the feedforward head and the best rule's predict.

    Raises:
        FileNotFoundError: one of them was not tested here.
    """
    folders = {rule: output_of(rule, seed) / "inference" / TEST_SET / "pictures" for rule in (BASELINE, BEST)}
    for rule, folder in folders.items():
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no {folder}: {rule}, seed {seed}, was not run on this machine")
    target = ROOT / PICTURES
    written = write_side_by_side({RULES[rule][0]: folder for rule, folder in folders.items()}, target)
    print(f"{len(written)} pictures side by side: {target}")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=RULES, default=list(RULES))
    parser.add_argument("--seeds", nargs="+", type=int, choices=SEEDS, default=SEEDS)
    parser.add_argument("--pictures", type=int, metavar="SEED", help="put pictures of a seed's models side by side")
    args = parser.parse_args(arguments)
    if args.pictures is not None:
        try:
            put_side_by_side(args.pictures)
        except FileNotFoundError as error:
            sys.exit(f"panoptic_runs: {error}")
        return
    failed = []
    for seed in args.seeds:
        for rule in args.only:
            folder, output = kept(rule, seed, ROOT), output_of(rule, seed)
            if (folder / "results.json").exists():
                continue
            if subprocess.run(command(rule, seed, output), cwd=ROOT).returncode:
                failed.append(f"{rule}, seed {seed}")
                continue
            collect_results(output / "inference" / TEST_SET, folder)
            print(f"kept: {folder}", flush=True)
    keep_costs(args.only, ROOT)
    if failed:
        sys.exit(f"panoptic_runs: failed: {'; '.join(failed)}; the same command tries them again")


if __name__ == "__main__":
    main()
