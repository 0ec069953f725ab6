"""Train and test every rule on Pathfinder, then draw the figures and write the pages of the small scale.

Finished runs are skipped, killed ones resume.

python -m tools.pathfinder_study                                      # missing runs, then the report
python -m tools.pathfinder_study --only hgru_crbp --seeds 0           # one run, then the report
python -m tools.pathfinder_study --report                             # only the report, from the existing records
python -m tools.pathfinder_study --check 7                            # scores of the checkpoints on stimuli of seed 7
python -m tools.pathfinder_study --scale paper --num-gpus 8           # the paper's size, on a cluster
python -m tools.pathfinder_study.report                               # the README's table
"""

import argparse
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .check import check_checkpoints
from .job import Job, run_job
from .ledger import VERDICTS
from .report import write_report
from .runs import JOBS, PILOTS, RUNS, SCALES

ROOT = Path(__file__).resolve().parents[2]
OUTPUT = Path("output/pathfinder_study")


def jobs_of(args: argparse.Namespace) -> list[Job]:
    """The jobs to do: the first seeds of all rows, then the second ones."""
    names = args.only or [*(PILOTS if SCALES[args.scale].pilots else ()), *RUNS]
    pairs = [(name, seed) for name in names for seed in (args.seeds or JOBS[name].seeds)]
    if not args.seeds:
        pairs.sort(key=lambda pair: JOBS[pair[0]].seeds.index(pair[1]))
    return [
        Job(name, seed, args.scale, ROOT, OUTPUT / args.scale / f"{name}_s{seed}", args.num_gpus)
        for name, seed in pairs
    ]


def run_in_process(job: Job) -> bool:
    """Run a job in a process of its own, with its output in a file; False if it fails."""
    job.output.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "tools.pathfinder_study", "--scale", job.scale_name]
    command += ["--num-gpus", str(job.num_gpus), "--run-here", job.name, str(job.seed)]
    start = time.time()
    log = job.output / "study.log"
    with log.open("w") as stream:
        code = subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT, cwd=ROOT).returncode
    minutes = (time.time() - start) / 60
    state = f"{minutes:.1f} min" if code == 0 else f"failed with exit code {code}, see {log}"
    print(f"{job.name}, seed {job.seed}: {state}", flush=True)
    return code == 0


def check(args: argparse.Namespace) -> None:
    """Print the score of every checkpoint on new stimuli with the reported one; exit if two are far apart."""
    far = count = 0
    try:
        for row in check_checkpoints(SCALES[args.scale], ROOT, args.check, OUTPUT / args.scale / "check", args.only):
            verdict = "" if row.holds else f"  more than {row.tolerance} apart"
            place = f"{row.name}, {row.spec} at t = {row.steps}"
            print(f"{place}: {row.found:.3f}, reported {row.reported:.3f}{verdict}", flush=True)
            far, count = far + (not row.holds), count + 1
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"pathfinder_study.py: {error}")
    if not count:
        sys.exit(f"pathfinder_study.py: the summary has no checkpoint of {', '.join(args.only or ['any run'])}")
    if far:
        sys.exit(f"pathfinder_study.py: {far} scores are too far from the reported ones")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", choices=SCALES, default="small")
    parser.add_argument("--only", nargs="+", metavar="RUN", help=f"runs out of {', '.join(RUNS)}")
    parser.add_argument("--seeds", nargs="+", type=int, help="seeds; default: see runs.py")
    parser.add_argument("--processes", type=int, default=1, help="concurrent runs (default 1)")
    parser.add_argument("--num-gpus", type=int, default=0, help="GPUs of one run; 0: the CPU or a single GPU")
    parser.add_argument("--report", action="store_true", help="only the report")
    parser.add_argument("--check", type=int, metavar="SEED", help="compare the checkpoints with their reported scores")
    parser.add_argument("--run-here", nargs=2, metavar=("RUN", "SEED"), help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.run_here:
        name, seed = args.run_here
        args.only, args.seeds = [name], [int(seed)]
        (job,) = jobs_of(args)
        run_job(job)
        return
    if args.check is not None:
        check(args)
        return
    if unknown := [name for name in args.only or () if name not in JOBS]:
        parser.error(f"unknown run {unknown[0]!r}; choose from {', '.join(JOBS)}")
    jobs = jobs_of(args)
    missing = [job for job in jobs if not job.record.exists()]
    print(f"{len(jobs) - len(missing)} of {len(jobs)} runs exist, {len(missing)} to run", flush=True)
    with ThreadPoolExecutor(args.processes) as pool:
        done = list(pool.map(run_in_process, [] if args.report else missing))
    folder = ROOT / SCALES[args.scale].folder
    # The pages compare the small scale with the paper.
    if args.scale == "small" and any((folder / "runs").glob("*.json")):
        write_report(folder, ROOT)
        print(f"written: {ROOT / 'docs/RESULTS.md'}, {ROOT / VERDICTS}, {folder / 'gallery.html'}")
    if not all(done):
        sys.exit("pathfinder_study: some runs failed; the same command tries them again")


if __name__ == "__main__":
    main()
