"""Measure this package on this machine; each subcommand writes tables to tools/benchmarks/results/.

python -m tools.benchmarks stimuli
python -m tools.benchmarks checks
python -m tools.benchmarks convolution
python -m tools.benchmarks cuda --minutes 12
python -m tools.benchmarks earlier cdbb1ad
python -m tools.benchmarks early-stop configs/quick/panoptic_R18_crbp_toy.yaml MODEL.pth
python -m tools.benchmarks growth
python -m tools.benchmarks launches
python -m tools.benchmarks memory
python -m tools.benchmarks objects configs/quick/panoptic_R18_contracting_toy.yaml MODEL.pth
python -m tools.benchmarks objects-training
python -m tools.benchmarks scipy
python -m tools.benchmarks steps
python -m tools.benchmarks torchdeq
"""

import argparse
import os
import statistics
import time

import torch

from tools.revisions import RevisionError, checked_out

from .against_scipy import compare_with_scipy, scipy_table
from .against_torchdeq import TOLERANCES, compare_with_torchdeq, torchdeq_table
from .convolution import convolution_table, cost_rows, mean_loss, measure_methods
from .cuda import Work, convolutions, measure_parts
from .earlier import compare_versions, earlier_table
from .early_stop import early_stop_table, measure_early_stop
from .growth import growth_table, measure_work
from .launches import launches_table
from .loading import PATHFINDER, STREAM, loader_of, loading_tables, measure_checks, measure_loading, measure_workers
from .many_objects import (
    DETECTIONS,
    POSITIVES,
    inference_models,
    measure_exits,
    measure_inference,
    measure_training,
    ratios_table,
    training_models,
)
from .memory import measure_live_peaks, measure_memory, measure_recurrent_parts, memory_tables, recurrent_part_table
from .stimuli import measure_stimuli, stimuli_table
from .tables import Table, write_table
from .trained_model import trained
from .training_step import (
    ACCELERATED,
    compare_steps,
    mask_problem,
    pathfinder_problem,
    steps_table,
)


def stimuli() -> None:
    """speed of the Pathfinder generator"""
    workers = os.cpu_count() or 1
    # Two archives or more, so that every process has work.
    counts = {"PF14": 2000, "PF20": 1000, "PF25": 1000, "PF6s": 2000, "PF9s": 1000, "PF12s": 1000}
    write_table("stimuli", "stimuli", stimuli_table(measure_stimuli(counts, workers), workers))


def convolution() -> None:
    """horizontal convolutions by every method, the loss of the cost model's choice, and rows for its table"""
    if torch.cuda.is_available():
        write_table("convolution_cuda", "convolution", convolutions(Work()))
        return
    rows = list(measure_methods())
    write_table("convolution", "convolution", convolution_table(rows))
    print(
        f"geometric means relative to the fastest: auto {mean_loss(rows):.2f}, direct {mean_loss(rows, 'direct'):.2f}"
    )
    print(cost_rows(rows, "cpu"))


def cuda(minutes: float) -> None:
    """steps, launches, graphs, convolutions, memory and whole models on a GPU, the most telling first"""
    if not torch.cuda.is_available():
        raise SystemExit("benchmarks: `cuda` needs a GPU; torch.cuda.is_available() is False")
    left = measure_parts(Work(), minutes, lambda name, table: write_table(f"cuda_{name}", "cuda", table))
    if left:
        print(f"left out after {minutes:g} minutes: {', '.join(left)}")


def early_stop(config_file: str, weights: str) -> None:
    """steps, time and PQ of a trained panoptic model with early exit"""
    tols = (0.001, 0.003, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2)
    with trained(config_file, weights, "MODEL.RECURRENCE.EARLY_STOP.ENABLED", "False") as (cfg, model, name, loader):
        most = cfg.MODEL.RECURRENCE.STEPS
        rows = {steps: measure_early_stop(model, loader, name, tols, steps) for steps in (most, 3 * most)}
    write_table("early_stop", f"early-stop {config_file} {weights}", early_stop_table(rows))


def earlier(revision: str) -> None:
    """training steps and inference compared with an earlier revision"""
    try:
        with checked_out(revision, "crbp_d2") as folder:
            changes = compare_versions(folder)
    except RevisionError as error:
        raise SystemExit(f"benchmarks: {error}") from None
    write_table("earlier", f"earlier {revision}", earlier_table(changes))


def growth() -> None:
    """cost of a training step as the work grows; loading; workers of the loader"""
    torch.set_num_threads(1)
    workers = measure_workers(lambda count: loader_of(PATHFINDER, STREAM, count, batch=16))
    for name, table in loading_tables(measure_loading(), workers).items():
        write_table(name, "growth", table)
    write_table("growth", "growth", growth_table(measure_work()))


def launches() -> None:
    """kernels and waits on a pretended device, compared with the plain loop and torchdeq"""
    write_table("launches", "launches", launches_table())


def checks() -> None:
    """processor seconds to parse and to check a COCO JSON of 100,000 annotations"""
    rows = [[part, f"{seconds:.2f}"] for part, seconds in measure_checks().items()]
    write_table("checks", "checks", Table(["part", "s"], rows))


def memory() -> None:
    """time and peak memory against steps, rule by rule"""
    for name, table in memory_tables(measure_memory()).items():
        write_table(name, "memory", table)
    live = measure_live_peaks()
    print(
        f"tensors alive under crbp: {live[max(live)] / live[min(live)]:.3f} times from {min(live)} to {max(live)} steps"
    )
    write_table("memory_per_roi", "memory", recurrent_part_table(measure_recurrent_parts()))


def objects(config_file: str, weights: str) -> None:
    """inference of the whole model with a given number of detections, against the feedforward model's"""
    with trained(config_file, weights, "MODEL.RECURRENCE.EARLY_STOP.ENABLED", "True") as (cfg, model, name, loader):
        exits, quality, full = measure_exits(model, loader, name)
    print(
        f"{statistics.fmean(exits):.2f} of {cfg.MODEL.RECURRENCE.STEPS} steps, PQ {quality:.2f}; all steps {full:.2f}"
    )
    torch.set_num_threads(1)
    found = measure_inference(inference_models(exits), DETECTIONS)
    write_table("objects", f"objects {config_file} {weights}", ratios_table(found, "detections"))


def objects_training() -> None:
    """a training step of the whole model with a given number of positive RoIs, against the feedforward model's"""
    torch.set_num_threads(1)
    found = measure_training(training_models, POSITIVES)
    write_table("objects_training", "objects-training", ratios_table(found, "positive RoIs"))


def steps() -> None:
    """C-RBP training steps against a plain reference, with the gradients' errors"""
    torch.set_num_threads(1)
    rows = []
    pairs = (
        (mask_problem().in_layout(), mask_problem(2).in_layout()),
        (pathfinder_problem(), pathfinder_problem(2, size=48)),
    )
    for problem, small in pairs:
        rows += compare_steps(problem, small, ACCELERATED[problem.name], 3, time.process_time)
    write_table("steps", "steps", steps_table(rows))


def torchdeq() -> None:
    """the implicit gradient against torchdeq's"""
    torch.set_num_threads(1)
    comparison = compare_with_torchdeq(mask_problem(8, 64, 14), TOLERANCES, repeats=7)
    write_table("torchdeq", "torchdeq", torchdeq_table(comparison.same_tolerance))
    pairs = [cost for pair in comparison.same_error for cost in pair]
    write_table("torchdeq_same_error", "torchdeq", torchdeq_table(pairs))


def scipy() -> None:
    """evaluations of Anderson and Broyden compared with scipy's"""
    write_table("scipy", "scipy", scipy_table(compare_with_scipy()))


# name -> function and its arguments
SUBCOMMANDS = {
    "checks": (checks, ()),
    "convolution": (convolution, ()),
    "cuda": (cuda, ("--minutes",)),
    "earlier": (earlier, ("revision",)),
    "early-stop": (early_stop, ("config_file", "weights")),
    "growth": (growth, ()),
    "launches": (launches, ()),
    "memory": (memory, ()),
    "objects": (objects, ("config_file", "weights")),
    "objects-training": (objects_training, ()),
    "scipy": (scipy, ()),
    "steps": (steps, ()),
    "stimuli": (stimuli, ()),
    "torchdeq": (torchdeq, ()),
}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    subparsers = parser.add_subparsers(dest="subcommand", required=True)
    for name, (run, names) in SUBCOMMANDS.items():
        subparser = subparsers.add_parser(name, help=run.__doc__)
        for argument in names:
            if argument == "--minutes":
                subparser.add_argument(
                    argument, type=float, default=60.0, help="begin no part after (default: %(default)g)"
                )
            else:
                subparser.add_argument(argument)
    values = vars(parser.parse_args(arguments))
    # Until a large block has been freed, glibc returns freed memory to the system at once, and timings would depend on
    # page faults.
    torch.empty(8_000_000).zero_()
    SUBCOMMANDS[values.pop("subcommand")][0](**values)


if __name__ == "__main__":
    main()
