"""Do the states stay where they were read out in training? (Linsley et al. 2020, state space analysis.)

N: steps trained with; T = 4 N. A state is averaged over space: C numbers.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy import ndarray

from .records import Record


@dataclass(frozen=True)
class Comparison:
    """Two samples a and b compared.

    distance: maximum distance (D) of their distribution functions. p: probability of at least D if they are equal.
    delta: Cliff's delta, P(b > a) - P(b < a).
    """

    distance: float
    p: float
    delta: float


def compare(a: ndarray, b: ndarray) -> Comparison:
    """Two-sample Kolmogorov-Smirnov test with the asymptotic p, and Cliff's delta.

    Raises:
        ValueError: an empty sample, or values that are not finite.
    """
    if not len(a) or not len(b) or not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError(f"compare: samples must hold finite values, got {len(a)} and {len(b)} values")
    both = np.concatenate([a, b])
    below = [np.searchsorted(np.sort(x), both, side="right") / len(x) for x in (a, b)]
    distance = float(np.abs(below[0] - below[1]).max())
    signs = np.sign(b[None, :] - a[:, None])
    return Comparison(distance, kolmogorov(distance * math.sqrt(len(a) * len(b) / len(both))), float(signs.mean()))


def kolmogorov(x: float) -> float:
    """P(K > x) of Kolmogorov's distribution, 2 sum over k of (-1)^(k-1) exp(-2 k^2 x^2)."""
    if x < 0.2:  # there the series converges slowly, and the probability differs from 1 by less than 1e-12
        return 1.0
    k = np.arange(1, 101)
    return float(np.clip(2 * ((-1.0) ** (k - 1) * np.exp(-2 * k**2 * x**2)).sum(), 0, 1))


@dataclass(frozen=True)
class StateSpace:
    """The states of one run at N and at T.

    at_trained, at_far: distances of the stimuli's states at N and at T from the centroid of those at N.
    drift: ||p_T - p_N|| of each stimulus over the spread of the states up to N in the plane they are projected on (root
        mean square distance from their centroid). The spread at N only may be too small for a scale.
    region: at_trained compared with at_far; significant if states have left the region of solutions.
    """

    at_trained: ndarray
    at_far: ndarray
    drift: ndarray
    region: Comparison


def state_space(record: Record) -> StateSpace | None:
    """None if the record has no finite states."""
    parts = [record.state_space.get(name) for name in ("pooled_at_N", "pooled_at_T", "projection")]
    if any(part is None for part in parts):
        return None
    trained, far, path = parts[0], parts[1], parts[2][:, : record.steps].reshape(-1, 2)
    if not all(np.isfinite(part).all() for part in (trained, far, path)):
        return None
    center = trained.mean(axis=0)
    at_trained, at_far = (np.linalg.norm(states - center, axis=1) for states in (trained, far))
    spread = np.sqrt(((path - path.mean(axis=0)) ** 2).sum(axis=1).mean())
    drift = np.linalg.norm(far - trained, axis=1) / max(spread, np.finfo(float).tiny)
    return StateSpace(at_trained, at_far, drift, compare(at_trained, at_far))
