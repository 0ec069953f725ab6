"""Train and test the toy panoptic models on the harder scenes, by every rule and with three seeds.

What is there is not run again, and a run that was killed is resumed. Of each run its panoptic quality after each of 30
steps is kept in tools/pathfinder_study/results/panoptic_hard.

python -m tools.pathfinder_study.panoptic_runs                                # what is missing
python -m tools.pathfinder_study.panoptic_runs --only progressive --seeds 0   # one run
"""

import argparse
import subprocess
import sys
from pathlib import Path

from .panoptic_results import RESULTS, collect_results

ROOT = Path(__file__).resolve().parents[2]
RULES = ("baseline", "bptt", "crbp", "contracting", "progressive")
SEEDS = (0, 1, 2)
STEPS = tuple(range(1, 31))
TEST_SET = "toy_panoptic_hard_val"


def kept(rule: str, seed: int, root: Path) -> Path:
    """Folder of what is kept of a run."""
    return root / RESULTS / "panoptic_hard" / f"{rule}_s{seed}"


def command(rule: str, seed: int, output: Path) -> list[str]:
    """That trains and tests one run; a feedforward head has no steps."""
    steps = () if rule == "baseline" else STEPS
    config = f"configs/quick/panoptic_R18_{rule}_hard.yaml"
    places = ["OUTPUT_DIR", str(output), "SEED", str(seed), "TEST.STEPS_TO_EVALUATE", str(steps)]
    return [sys.executable, "tools/train_net.py", "--config-file", config, "--resume", *places]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=RULES, default=RULES)
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    args = parser.parse_args(arguments)
    failed = []
    for seed in args.seeds:
        for rule in args.only:
            folder, output = kept(rule, seed, ROOT), ROOT / f"output/panoptic_hard/{rule}_s{seed}"
            if (folder / "results.json").exists():
                continue
            if subprocess.run(command(rule, seed, output), cwd=ROOT).returncode:
                failed.append(f"{rule}, seed {seed}")
                continue
            collect_results(output / "inference" / TEST_SET, folder)
            print(f"kept: {folder}", flush=True)
    if failed:
        sys.exit(f"panoptic_runs: failed: {'; '.join(failed)}; the same command tries them again")


if __name__ == "__main__":
    main()
