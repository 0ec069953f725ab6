"""Train and test the panoptic models on the harder toy scenes, one thread a run.

Trained on the usual harder scenes, tested on 400 scenes of a seed of their own after each of 30 steps. Finished runs
are skipped, killed ones resume. Results are kept in tools/pathfinder_study/results/panoptic_hard_400.

python -m tools.pathfinder_study.panoptic_runs                                # all that is missing
python -m tools.pathfinder_study.panoptic_runs --only progressive --seeds 0   # one run
python -m tools.pathfinder_study.panoptic_runs --pictures 1                   # models of this seed, side by side
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from crbp_d2.data import register_toy_panoptic
from crbp_d2.engine.run import main as train_or_test

from .harder_scenes import BASELINE, BEST, PICTURES, PROTOCOLS, RULES, config_of, kept
from .panoptic_results import collect_results, write_side_by_side

ROOT = Path(__file__).resolve().parents[2]
RUN_RULES = (BASELINE, "bptt", BEST, "progressive")
STEPS = tuple(range(1, 31))
SCENES, SEEDS = PROTOCOLS[0].scenes, PROTOCOLS[0].seeds
# Test scenes share no draw with those of training, whose seed is 0.
TEST_SEED = 41
TEST_SET = "toy_panoptic_hard_val"


def output_of(rule: str, seed: int) -> Path:
    return ROOT / f"output/panoptic_hard_400/{rule}_s{seed}"


def train_arguments(rule: str, seed: int) -> list[str]:
    """Arguments of tools/train_net.py that train a run, or resume it."""
    options = {"OUTPUT_DIR": output_of(rule, seed), "SEED": seed, "SOLVER.CHECKPOINT_PERIOD": 100}
    options |= {"TEST.STEPS_TO_EVALUATE": (), "TEST.PICTURES": 0}
    return ["--config-file", str(ROOT / config_of(rule)), "--resume", *_flat(options)]


def test_arguments(rule: str, seed: int) -> list[str]:
    """Arguments that test a trained run; a feedforward head has no steps."""
    output = output_of(rule, seed)
    options = {"OUTPUT_DIR": output, "SEED": seed, "MODEL.WEIGHTS": output / "model_final.pth"}
    options["TEST.STEPS_TO_EVALUATE"] = () if rule == BASELINE else STEPS
    return ["--config-file", str(ROOT / config_of(rule)), "--eval-only", *_flat(options)]


def _flat(options: dict[str, object]) -> list[str]:
    return [str(part) for item in options.items() for part in item]


def test_here(rule: str, seed: int) -> None:
    """Test a trained run in this process, in which the name of the test set gets its own scenes.

    The package's registration leaves registered names as they are.
    """
    register_toy_panoptic(num_val=SCENES, seed=TEST_SEED, hard=True)
    train_or_test(test_arguments(rule, seed))


def run(rule: str, seed: int) -> bool:
    """Train, test and keep a run, each part in a process of one thread; False if one fails."""
    output = output_of(rule, seed)
    commands = []
    if not (output / "model_final.pth").exists():
        commands.append(["tools/train_net.py", *train_arguments(rule, seed)])
    commands.append(["-m", "tools.pathfinder_study.panoptic_runs", "--test-here", rule, str(seed)])
    for command in commands:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        if subprocess.run([sys.executable, *command], cwd=ROOT, env=environment).returncode:
            return False
    collect_results(output / "inference" / TEST_SET, kept(rule, seed, ROOT))
    print(f"kept: {kept(rule, seed, ROOT)}", flush=True)
    return True


def put_side_by_side(seed: int) -> None:
    """Keep pictures of the predictions of the feedforward head and of BEST.

    Raises:
        FileNotFoundError: a model has not been tested on this machine.
    """
    folders = {rule: output_of(rule, seed) / "inference" / TEST_SET / "pictures" for rule in (BASELINE, BEST)}
    for rule, folder in folders.items():
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is missing: {rule}, seed {seed}, has not been run on this machine")
    target = ROOT / PICTURES
    written = write_side_by_side({RULES[rule][0]: folder for rule, folder in folders.items()}, target)
    print(f"{len(written)} pictures side by side: {target}")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=RULES, default=RUN_RULES)
    parser.add_argument("--seeds", nargs="+", type=int, choices=SEEDS, default=SEEDS)
    parser.add_argument("--pictures", type=int, metavar="SEED", help="put pictures of a seed's models side by side")
    parser.add_argument("--test-here", nargs=2, metavar=("RULE", "SEED"), help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.test_here:
        rule, seed = args.test_here
        test_here(rule, int(seed))
        return
    if args.pictures is not None:
        try:
            put_side_by_side(args.pictures)
        except FileNotFoundError as error:
            sys.exit(f"panoptic_runs: {error}")
        return
    pairs = [(rule, seed) for seed in args.seeds for rule in args.only]
    missing = [pair for pair in pairs if not (kept(*pair, ROOT) / "results.json").exists()]
    failed = [f"{rule}, seed {seed}" for rule, seed in missing if not run(rule, seed)]
    if failed:
        sys.exit(f"panoptic_runs: failed: {'; '.join(failed)}; the same command tries them again")


if __name__ == "__main__":
    main()
