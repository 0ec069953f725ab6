"""Comparisons of samples against scipy and exact answers."""

import numpy as np
import pytest
from scipy import stats

from tools.pathfinder_study.distributions import compare, density, kolmogorov, level_of_share


def test_kolmogorov_smirnov_is_scipys():
    generator = np.random.default_rng(0)
    for sizes, shift in (((64, 64), 0.3), ((40, 90), 0.0), ((64, 64), 2.0)):
        a, b = generator.standard_normal(sizes[0]), generator.standard_normal(sizes[1]) + shift
        truth = stats.ks_2samp(a, b, method="asymp")
        found = compare(a, b)
        assert found.distance == pytest.approx(truth.statistic, abs=1e-12)
        # scipy's is that of the one-sample test at the same effective size, corrected for small samples.
        size = sizes[0] * sizes[1] / sum(sizes)
        assert found.p == pytest.approx(stats.kstwobign.sf(found.distance * size**0.5), rel=1e-9, abs=1e-12)
        assert abs(found.p - truth.pvalue) < 0.05 and (found.p < 0.01) == (truth.pvalue < 0.01)


def test_samples_with_known_distances():
    assert compare(np.array([1.0, 2.0]), np.array([1.0, 2.0])) == compare(np.array([2.0, 1.0]), np.array([1.0, 2.0]))
    same = compare(np.arange(5.0), np.arange(5.0))
    assert (same.distance, same.p, same.delta) == (0, 1, 0)
    apart = compare(np.arange(50.0), np.arange(100.0, 150.0))
    assert (apart.distance, apart.delta) == (1, 1) and apart.p < 1e-20
    # b > a in 3 of 4 pairs, below in 1.
    assert compare(np.array([0.0, 2.0]), np.array([1.0, 3.0])).delta == 0.5
    assert compare(np.array([0.0, 2.0]), np.array([1.0, 3.0])).distance == 0.5
    with pytest.raises(ValueError, match="finite"):
        compare(np.array([np.nan]), np.array([1.0]))
    with pytest.raises(ValueError, match="0 and 1 values"):
        compare(np.array([]), np.array([1.0]))


def test_kolmogorovs_critical_value():
    assert kolmogorov(1.3580986) == pytest.approx(0.05, abs=1e-6) and kolmogorov(0.1) == 1
    assert kolmogorov(0.2) == pytest.approx(1, abs=1e-9)


def test_density_has_mass_one_and_its_peak_where_the_points_are():
    points = np.random.default_rng(0).standard_normal((200, 2)) @ np.array([[1.0, 0.8], [0.0, 0.3]]) + [3, -1]
    x, y = np.linspace(-3, 9, 241), np.linspace(-7, 5, 241)
    heights = density(points, x, y)
    assert heights.sum() * 0.05**2 == pytest.approx(1, abs=1e-3)
    row, column = np.unravel_index(heights.argmax(), heights.shape)
    assert abs(x[column] - 3) < 0.5 and abs(y[row] + 1) < 0.5
    level = level_of_share(heights, 0.8)
    assert heights[heights >= level].sum() / heights.sum() == pytest.approx(0.8, abs=0.01)


def test_density_of_points_on_a_line():
    line = np.linspace(0, 1, 30)[:, None] * np.array([1.0, 1.0])
    assert np.isfinite(density(line, np.linspace(0, 1, 5), np.linspace(0, 1, 5))).all()
