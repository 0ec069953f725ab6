#!/usr/bin/env python
"""Parameters and FLOPs of a model; `crbp-analyze-model` in an installed package."""

from crbp_d2.cli.analyze_model import main

if __name__ == "__main__":
    main()
