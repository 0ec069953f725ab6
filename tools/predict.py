#!/usr/bin/env python
"""Predict on pictures or videos with a trained run; `crbp-predict` where the package is installed."""

import sys
from pathlib import Path

# The package of this checkout, from any working directory.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from crbp_d2.cli.commands import predict  # noqa: E402

if __name__ == "__main__":
    predict()
