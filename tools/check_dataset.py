#!/usr/bin/env python
"""Find what is wrong with panoptic data sets; `crbp-check-dataset` in an installed package."""

import sys

from crbp_d2.cli.check_dataset import main

if __name__ == "__main__":
    sys.exit(main())
