#!/usr/bin/env python
"""Convert weights released by the paper's authors; `crbp-convert-authors-weights` where the package is installed."""

import sys
from pathlib import Path

# The package of this checkout, from any working directory.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from crbp_d2.cli.commands import convert_authors_weights  # noqa: E402

if __name__ == "__main__":
    convert_authors_weights()
