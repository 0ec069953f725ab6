#!/usr/bin/env python
"""Train or evaluate a model; `crbp-train` where the package is installed."""

import sys
from pathlib import Path

# The package of this checkout, from any working directory.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from crbp_d2.cli.commands import train  # noqa: E402

if __name__ == "__main__":
    train()
