#!/usr/bin/env python
"""Predict on your own pictures with a trained run; `crbp-predict` in an installed package."""

from crbp_d2.cli.predict import main

if __name__ == "__main__":
    main()
