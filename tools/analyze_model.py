#!/usr/bin/env python
"""Show a model's parameters and FLOPs by part and by step; `crbp-analyze-model` where the package is installed."""

import sys
from pathlib import Path

# The package of this checkout, from any working directory.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from crbp_d2.cli.commands import analyze_model  # noqa: E402

if __name__ == "__main__":
    analyze_model()
