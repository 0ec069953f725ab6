"""Comparing samples: two-sample Kolmogorov-Smirnov test, effect size, spread over seeds, densities in the plane.

m, n: sizes of two samples; K: points.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy import ndarray


@dataclass(frozen=True)
class Comparison:
    """Of two samples a and b.

    distance: greatest one (D) of their distribution functions. p: probability of at least that under one distribution.
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


def density(points: ndarray, x: ndarray, y: ndarray, bandwidth: float = 0.5) -> ndarray:
    """Gaussian kernel density of K x 2 points on the grid of x and y: len(y) x len(x).

    The kernel has the points' covariance, its spread scaled by Scott's rule, K^(-1/6), and by `bandwidth`: states lie
    along paths, which the rule alone blurs. Its spread in any direction is at least a hundredth of the widest
    one's, so that points on a line have a density too.
    """
    covariance = np.cov(points.T) * (bandwidth * len(points) ** (-1 / 6)) ** 2
    values, vectors = np.linalg.eigh(covariance)
    scales = np.sqrt(np.maximum(values, max(values.max() * 1e-4, 1e-12)))
    grid = np.stack(np.meshgrid(x, y), axis=-1) @ vectors / scales
    centers = points @ vectors / scales
    total = np.zeros(grid.shape[:2])
    for center in centers:
        total += np.exp(-0.5 * ((grid - center) ** 2).sum(axis=-1))
    return total / (len(points) * 2 * math.pi * scales.prod())


def level_of_share(heights: ndarray, share: float) -> float:
    """Height above which `share` of the mass of a gridded density lies."""
    sorted_heights = np.sort(heights, axis=None)[::-1]
    mass = np.cumsum(sorted_heights)
    return float(sorted_heights[np.searchsorted(mass, share * mass[-1])])
