"""Fixtures of all tests."""

import random

import numpy as np
import pytest
import torch

SEED = 0


@pytest.fixture(autouse=True)
def seeded():
    """Random numbers are the same in every run and every order of tests.

    detectron2's `seed_all_rng` would also fix the hash seeds of processes that a test starts.
    """
    random.seed(SEED)
    np.random.seed(SEED)  # noqa: NPY002  (detectron2's augmentations draw from the global generator)
    torch.manual_seed(SEED)
