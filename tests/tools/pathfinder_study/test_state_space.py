"""State space comparisons against scipy and exact answers."""

from dataclasses import replace

import numpy as np
import pytest
from helpers.study_records import write_records
from scipy import stats

from tools.pathfinder_study.records import load_study
from tools.pathfinder_study.state_space import compare, kolmogorov, state_space


def test_kolmogorov_smirnov_agrees_with_scipy():
    generator = np.random.default_rng(0)
    for sizes, shift in (((64, 64), 0.3), ((40, 90), 0.0), ((64, 64), 2.0)):
        a, b = generator.standard_normal(sizes[0]), generator.standard_normal(sizes[1]) + shift
        truth = stats.ks_2samp(a, b, method="asymp")
        found = compare(a, b)
        assert found.distance == pytest.approx(truth.statistic, abs=1e-12)
        # scipy corrects the one-sample test at the same effective size for small samples.
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


def test_kolmogorov_critical_value():
    assert kolmogorov(1.3580986) == pytest.approx(0.05, abs=1e-6) and kolmogorov(0.1) == 1
    assert kolmogorov(0.2) == pytest.approx(1, abs=1e-9)


def test_distances_and_drift_of_moved_states(tmp_path):
    record = load_study(write_records(tmp_path, ["hgru_bptt"])).first("hgru_bptt")
    states, path = record.state_space["pooled_at_N"], record.state_space["projection"]
    moved = states + np.array([3.0, 4, 0, 0, 0, 0, 0, 0])
    found = state_space(replace(record, state_space={"pooled_at_N": states, "pooled_at_T": moved, "projection": path}))
    spread = np.sqrt(path[:, :6].reshape(-1, 2).var(axis=0).sum())
    assert found.drift == pytest.approx(np.full(64, 5 / spread))
    assert found.at_trained[0] == pytest.approx(np.linalg.norm(states[0] - states.mean(axis=0)))
    assert found.at_far[0] == pytest.approx(np.linalg.norm(moved[0] - states.mean(axis=0)))
    assert state_space(replace(record, state_space={})) is None
