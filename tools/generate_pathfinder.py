#!/usr/bin/env python
"""Write the stimuli of a Pathfinder data set; `crbp-generate-pathfinder` where the package is installed."""

import sys
from pathlib import Path

# The package of this checkout, from any working directory.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from crbp_d2.cli.commands import generate_pathfinder  # noqa: E402

if __name__ == "__main__":
    generate_pathfinder()
