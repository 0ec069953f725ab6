"""No test depends on random numbers that those before it drew."""

import random

import numpy as np
import pytest
import torch
from conftest import SEED


@pytest.mark.parametrize("order", ["first", "second"])
def test_random_numbers_are_those_of_the_seed(order):
    assert random.random() == random.Random(SEED).random()
    assert np.random.rand() == np.random.RandomState(SEED).rand()  # noqa: NPY002
    assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(SEED)))
