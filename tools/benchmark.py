#!/usr/bin/env python
"""Measure this package on this machine; each subcommand writes its section of BENCHMARKS.md.

tools/benchmark.py stimuli
tools/benchmark.py convolution
"""

import argparse
import os
from pathlib import Path

import torch

from crbp_d2.analysis.convolution import convolution_section, measure_convolutions, measure_steps
from crbp_d2.analysis.page import write_section
from crbp_d2.analysis.stimuli import measure_stimuli, stimuli_section

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


SUBCOMMANDS = {"convolution": convolution, "stimuli": stimuli}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    subparsers = parser.add_subparsers(dest="subcommand", required=True)
    for name, run in SUBCOMMANDS.items():
        subparsers.add_parser(name, help=run.__doc__)
    SUBCOMMANDS[parser.parse_args(arguments).subcommand]()
    print(f"written: {PAGE}")


if __name__ == "__main__":
    main()
