"""Random numbers as a function of what they are for, so that a resumed run draws those of an undisturbed one.

A key is a tuple of whole numbers from 0: the run's seed, one of the purposes below, then what it is for.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from detectron2.utils import comm
from torch import nn

from crbp_d2.recurrence import RandomSteps

# Second number of a key.
INITIAL_WEIGHTS, SAMPLER, AUGMENTATION, STEP, ROI_SAMPLING, NUMBER_OF_STEPS = range(6)


def run_seed(seed: int) -> int:
    """SEED of a config, or where that is negative a random number that all processes share."""
    return seed if seed >= 0 else comm.shared_random_seed()


def seed_generators(*key: int) -> None:
    """Seed the global generators of Python, NumPy and PyTorch (on all devices)."""
    words = _words(key)
    _seed_host(words)
    torch.manual_seed(_whole(words[:2]))


@contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Seed the global generators of the host within the block; afterwards they are where they were before."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    words = _words(key)
    _seed_host(words)
    # Not torch.manual_seed, which reseeds the accelerators too.
    torch.default_generator.manual_seed(_whole(words[:2]))
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])


def seed_draws(model: nn.Module, seed: int) -> None:
    """Seed every RandomSteps of a model by the run's seed and its place in the model, the same on all processes."""
    solvers = [part for part in model.modules() if isinstance(part, RandomSteps)]
    for place, solver in enumerate(solvers):
        solver.seed = _whole(_words((seed, NUMBER_OF_STEPS, place))[:2])


def _words(key: tuple[int, ...]) -> np.ndarray:
    return np.random.SeedSequence(key).generate_state(8)


def _whole(words: np.ndarray) -> int:
    return int.from_bytes(words.tobytes(), "little")


def _seed_host(words: np.ndarray) -> None:
    random.seed(_whole(words[2:4]))
    # The generator that detectron2's augmentations draw from.
    np.random.seed(words[4:])  # noqa: NPY002
