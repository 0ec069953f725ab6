"""Measure this package on this machine; each subcommand writes its section of BENCHMARKS.md.

python -m tools.benchmarks stimuli
python -m tools.benchmarks convolution
python -m tools.benchmarks cuda
python -m tools.benchmarks earlier 761bd94
python -m tools.benchmarks early-stop configs/quick/panoptic_R18_crbp_toy.yaml MODEL.pth
python -m tools.benchmarks growth
python -m tools.benchmarks memory
python -m tools.benchmarks model
python -m tools.benchmarks objects configs/quick/panoptic_R18_contracting_toy.yaml MODEL.pth
python -m tools.benchmarks objects-training
python -m tools.benchmarks scale
python -m tools.benchmarks scipy
python -m tools.benchmarks steps
python -m tools.benchmarks torchdeq
"""

import argparse
import os
import time
from pathlib import Path

import torch
from detectron2.data import DatasetCatalog

from crbp_d2.engine import Trainer
from tools.compare_revisions import RevisionError, checked_out
from tools.page import write_section

from .against_scipy import compare_with_scipy, scipy_section
from .against_torchdeq import (
    TOLERANCES,
    compare_with_torchdeq,
    torchdeq_panels,
    torchdeq_section,
)
from .convolution import (
    PROBLEMS,
    SWEEP,
    convolution_panels,
    convolution_section,
    measure_methods,
    measure_steps,
)
from .cuda import NOT_RUN, Work, cuda_section
from .earlier import compare_versions, earlier_section
from .early_stop import (
    early_stop_panels,
    early_stop_section,
    measure_early_stop,
    measure_evaluations,
)
from .extrapolation import Assumptions, extrapolation_section, measure_models
from .growth import growth_panels, growth_section, measure_work
from .loading import (
    FILES,
    IMAGES,
    PATHFINDER,
    STREAM,
    loader_of,
    loading_panel,
    loading_section,
    measure_loading,
    measure_workers,
)
from .many_objects import (
    DETECTIONS,
    POSITIVES,
    inference_models,
    inference_section,
    measure_exits,
    measure_inference,
    measure_training,
    training_models,
    training_section,
)
from .memory import (
    measure_live_peaks,
    measure_memory,
    measure_recurrent_parts,
    memory_panels,
    memory_section,
    recurrent_part_section,
)
from .plots import Panel, picture
from .processes import measure_layouts, processes_panel, processes_section
from .step_profile import peak_rate, profile_section, profile_step
from .stimuli import measure_stimuli, stimuli_section
from .trained_model import trained
from .training_step import (
    ACCELERATED,
    compare_loops,
    compare_steps,
    loops_section,
    mask_problem,
    pathfinder_problem,
    plain_step,
    recurrence_step,
    steps_section,
)
from .whole_model import model_section

PAGE = Path(__file__).resolve().parents[2] / "docs/BENCHMARKS.md"
HEAD = "Benchmarks\n\nEach section is written by the command in it, and holds for the machine it names."


def _write(title: str, command: str, *parts: str | tuple[str, str, list[Panel]]) -> None:
    """A section of texts and pictures; a picture is its name, what it shows and its panels."""
    texts = [part if isinstance(part, str) else picture(PAGE, *part) for part in parts]
    write_section(PAGE, HEAD, title, f"python -m tools.benchmarks {command}", "\n\n".join(texts))


def stimuli() -> None:
    """speed of the Pathfinder generator"""
    workers = os.cpu_count() or 1
    # Two archives at least, so that no process idles.
    counts = {"PF14": 2000, "PF20": 1000, "PF25": 1000, "PF6s": 2000, "PF9s": 1000, "PF12s": 1000}
    section = stimuli_section(measure_stimuli(counts, workers), workers)
    _write("Pathfinder stimuli", "stimuli", section)


def convolution() -> None:
    """horizontal convolutions by every method, and what the cost model's choice loses"""
    rows = list(measure_methods())
    half = measure_methods(PROBLEMS[len(SWEEP) :], torch.bfloat16)
    section = convolution_section([*rows, *half], measure_steps(), torch.get_num_threads())
    print(section)
    shown = "time of a convolution and its product against kernel size: direct, by FFT, and as auto chooses"
    _write("Convolutions", "convolution", section, ("convolution", shown, convolution_panels(rows[: len(SWEEP)])))


def cuda() -> None:
    """all of this on a GPU"""
    _write("On a GPU", "cuda", cuda_section(Work()) if torch.cuda.is_available() else NOT_RUN)


def early_stop(config_file: str, weights: str) -> None:
    """steps, time and PQ of a trained panoptic model that stops early; quality per step"""
    tols, step_counts = (0.001, 0.003, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2), tuple(range(1, 31))
    with trained(config_file, weights, "MODEL.RECURRENCE.EARLY_STOP.ENABLED", "False") as (cfg, model, name, loader):
        most = cfg.MODEL.RECURRENCE.STEPS
        rows = {steps: measure_early_stop(model, loader, name, tols, steps) for steps in (most, 3 * most)}

        def evaluate(steps: tuple[int, ...]) -> None:
            changed = cfg.clone()
            changed.defrost()
            changed.merge_from_list(["DATASETS.TEST", (name,), "TEST.STEPS_TO_EVALUATE", steps])
            Trainer.test(changed, model)

        evaluations = measure_evaluations(evaluate, step_counts)
    section = early_stop_section(rows, evaluations, len(step_counts), len(DatasetCatalog.get(name)))
    shown = "steps, time and lost PQ against the threshold"
    command = f"early-stop {config_file} {weights}"
    _write("Early stop and quality per step", command, section, ("early_stop", shown, early_stop_panels(rows)))


def earlier(revision: str) -> None:
    """training steps and inference beside those of an earlier version"""
    rounds = 7
    try:
        with checked_out(revision, "crbp_d2") as folder:
            changes = compare_versions(folder, rounds=rounds)
    except RevisionError as error:
        raise SystemExit(f"benchmarks: {error}") from None
    _write("Beside an earlier version", f"earlier {revision}", earlier_section(revision, changes, rounds))


def growth() -> None:
    """cost of a training step as the work grows; loading by itself; workers of the loader; processes"""
    load = os.getloadavg()[0]
    torch.set_num_threads(1)
    workers = measure_workers(lambda count: loader_of(PATHFINDER, STREAM, count, batch=16))
    layouts = measure_layouts()
    parallel = [loading_section(measure_loading(), workers, load), processes_section(layouts)]
    growths = measure_work()
    panels = [*growth_panels(growths), loading_panel(workers), processes_panel(layouts)]
    shown = "time and memory of a training step, stimuli and images a second as the work or the workers grow"
    _write("Cost as the work grows", "growth", growth_section(growths), *parallel, ("growth", shown, panels))


def scale() -> None:
    """how long the paper's trainings would take on GPUs, from measured parts and assumptions"""
    torch.set_num_threads(1)
    loading = measure_loading()
    rates = {"panoptic": loading[IMAGES], "pathfinder": loading[FILES]}
    _write("At the paper's scale", "scale", extrapolation_section(measure_models(), rates, Assumptions()))


def memory() -> None:
    """time and peak memory against steps, rule by rule"""
    costs = measure_memory()
    shown = "peak memory and time of a training step against the number of steps, a curve a rule"
    part = recurrent_part_section(measure_recurrent_parts())
    _write(
        "Memory", "memory", memory_section(costs, measure_live_peaks()), ("memory", shown, memory_panels(costs)), part
    )


def model() -> None:
    """a training step and inference of the whole Panoptic FPN against the feedforward model's"""
    _write("The whole model", "model", model_section(repeats=3))


def objects(config_file: str, weights: str) -> None:
    """inference of the whole model with a given number of detections, against the feedforward model's"""
    with trained(config_file, weights, "MODEL.RECURRENCE.EARLY_STOP.ENABLED", "True") as (cfg, model, name, loader):
        exits, quality, full = measure_exits(model, loader, name)
    torch.set_num_threads(1)
    found = measure_inference(inference_models(exits), DETECTIONS)
    section = inference_section(found, exits, quality, full, cfg.MODEL.RECURRENCE.STEPS)
    _write("Inference with many objects", f"objects {config_file} {weights}", section)


def objects_training() -> None:
    """a training step of the whole model with a given number of positive RoIs, against the feedforward model's"""
    torch.set_num_threads(1)
    section = training_section(measure_training(training_models, POSITIVES))
    _write("Training with many objects", "objects-training", section)


def steps() -> None:
    """C-RBP training steps against a plain reference, with the gradients' errors"""
    torch.set_num_threads(1)
    clock, repeats, rows, loops, profiles = time.process_time, 3, [], [], {}
    pairs = (
        (mask_problem().in_layout(), mask_problem(2).in_layout()),
        (pathfinder_problem(), pathfinder_problem(2, size=48)),
    )
    for problem, small in pairs:
        rows += compare_steps(problem, small, ACCELERATED[problem.name], repeats, clock)
        loops.append(compare_loops(problem, 3 * repeats, clock))
        crbp = problem.rule()
        profiles[problem.name] = [
            profile_step("plain reference", lambda p=problem: plain_step(p)),
            profile_step("crbp", lambda p=problem, r=crbp: recurrence_step(p, r)),
        ]
    texts = steps_section(rows, repeats), loops_section(loops, 3 * repeats), profile_section(profiles, peak_rate())
    _write("A C-RBP training step", "steps", *texts)


def torchdeq() -> None:
    """the implicit gradient against torchdeq's"""
    torch.set_num_threads(1)
    comparison = compare_with_torchdeq(mask_problem(8, 64, 14), TOLERANCES, repeats=7)
    shown = "gradient error against time, and what the transposed solves reach against their tolerance"
    panels = torchdeq_panels(comparison)
    _write("Against torchdeq", "torchdeq", torchdeq_section(comparison, 7), ("torchdeq", shown, panels))


def scipy() -> None:
    """evaluations of Anderson and Broyden beside scipy's"""
    _write("Evaluations beside scipy's", "scipy", scipy_section(compare_with_scipy()))


# name -> function and its arguments
SUBCOMMANDS = {
    "convolution": (convolution, ()),
    "cuda": (cuda, ()),
    "earlier": (earlier, ("revision",)),
    "early-stop": (early_stop, ("config_file", "weights")),
    "growth": (growth, ()),
    "memory": (memory, ()),
    "model": (model, ()),
    "objects": (objects, ("config_file", "weights")),
    "objects-training": (objects_training, ()),
    "scale": (scale, ()),
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
            subparser.add_argument(argument)
    values = vars(parser.parse_args(arguments))
    # glibc gives freed memory back to the system at once until a large block has been freed, and each way of doing
    # something would pay for page faults by the luck of where its memory lies.
    torch.empty(8_000_000).zero_()
    SUBCOMMANDS[values.pop("subcommand")][0](**values)
    print(f"written: {PAGE}")


if __name__ == "__main__":
    main()
