#!/usr/bin/env python
"""Measure this package on this machine; each subcommand writes its section of BENCHMARKS.md.

tools/benchmark.py stimuli
tools/benchmark.py convolution
tools/benchmark.py early-stop configs/quick/panoptic_R18_crbp_toy.yaml output/panoptic_R18_crbp_toy/model_final.pth
tools/benchmark.py memory
tools/benchmark.py model
tools/benchmark.py steps
tools/benchmark.py torchdeq
"""

import argparse
import os
import tempfile
from pathlib import Path

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.engine import default_argument_parser

from crbp_d2.analysis.against_torchdeq import compare_with_torchdeq, torchdeq_section
from crbp_d2.analysis.convolution import convolution_section, measure_convolutions, measure_steps
from crbp_d2.analysis.early_stop import early_stop_section, measure_early_stop, measure_evaluations
from crbp_d2.analysis.memory import measure_memory, memory_section
from crbp_d2.analysis.page import write_section
from crbp_d2.analysis.stimuli import measure_stimuli, stimuli_section
from crbp_d2.analysis.training_step import ACCELERATED, compare_steps, mask_problem, pathfinder_problem, steps_section
from crbp_d2.analysis.whole_model import model_section
from crbp_d2.engine import Trainer, check_inputs, setup

PAGE = Path(__file__).resolve().parent.parent / "BENCHMARKS.md"
HEAD = "Benchmarks\n\nEach section is written by the command in it, and holds for the machine it names."


def stimuli() -> None:
    """speed of the Pathfinder generator"""
    workers = os.cpu_count() or 1
    # Two archives at least, so that no process idles.
    counts = {"PF14": 2000, "PF20": 1000, "PF25": 1000, "PF6s": 2000, "PF9s": 1000, "PF12s": 1000}
    section = stimuli_section(measure_stimuli(counts, workers), workers)
    write_section(PAGE, HEAD, "Pathfinder stimuli", "tools/benchmark.py stimuli", section)


def convolution() -> None:
    """horizontal convolutions, direct and by Fourier transform"""
    section = convolution_section([*measure_convolutions(), *measure_steps()], torch.get_num_threads())
    write_section(PAGE, HEAD, "Large kernels", "tools/benchmark.py convolution", section)


def early_stop(config_file: str, weights: str) -> None:
    """steps, time and PQ of a trained panoptic model that stops early; quality per step"""
    tols, step_counts = (0.001, 0.003, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2), tuple(range(1, 31))
    with tempfile.TemporaryDirectory() as folder:
        flags = ["--config-file", config_file, "--eval-only", "MODEL.WEIGHTS", weights, "OUTPUT_DIR", folder]
        cfg = setup(default_argument_parser().parse_args(flags))
        check_inputs(cfg, train=False)
        model = Trainer.build_model(cfg)
        DetectionCheckpointer(model).load(cfg.MODEL.WEIGHTS)
        name, trained = cfg.DATASETS.TEST[0], cfg.MODEL.RECURRENCE.STEPS
        loader = Trainer.build_test_loader(cfg, name)
        rows = {steps: measure_early_stop(model, loader, name, tols, steps) for steps in (trained, 3 * trained)}

        def evaluate(steps: tuple[int, ...]) -> None:
            changed = cfg.clone()
            changed.defrost()
            changed.merge_from_list(["DATASETS.TEST", (name,), "TEST.STEPS_TO_EVALUATE", steps])
            Trainer.test(changed, model)

        evaluations = measure_evaluations(evaluate, step_counts)
    section = early_stop_section(rows, evaluations, len(step_counts), len(loader.dataset))
    command = f"tools/benchmark.py early-stop {config_file} {weights}"
    write_section(PAGE, HEAD, "Early stop and quality per step", command, section)


def memory() -> None:
    """time and peak memory against steps, rule by rule"""
    write_section(PAGE, HEAD, "Memory", "tools/benchmark.py memory", memory_section(measure_memory()))


def model() -> None:
    """a training step and inference of the whole Panoptic FPN against the feedforward model's"""
    write_section(PAGE, HEAD, "The whole model", "tools/benchmark.py model", model_section(repeats=3))


def steps() -> None:
    """C-RBP training steps against a plain reference, with the gradients' errors"""
    rows = [
        *compare_steps(mask_problem(), mask_problem(2), ACCELERATED["mask cell"], repeats=7),
        *compare_steps(pathfinder_problem(), pathfinder_problem(2, size=48), ACCELERATED["Pathfinder hGRU"], repeats=7),
    ]
    write_section(PAGE, HEAD, "A C-RBP training step", "tools/benchmark.py steps", steps_section(rows, 7))


def torchdeq() -> None:
    """the implicit gradient against torchdeq's"""
    rows = compare_with_torchdeq(mask_problem(8, 64, 14), [1e-2, 1e-3], repeats=7)
    write_section(PAGE, HEAD, "Against torchdeq", "tools/benchmark.py torchdeq", torchdeq_section(rows, 7))


# name -> function and its arguments
SUBCOMMANDS = {
    "convolution": (convolution, ()),
    "early-stop": (early_stop, ("config_file", "weights")),
    "memory": (memory, ()),
    "model": (model, ()),
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
    SUBCOMMANDS[values.pop("subcommand")][0](**values)
    print(f"written: {PAGE}")


if __name__ == "__main__":
    main()
