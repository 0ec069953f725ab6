"""The Neumann series: stopping, growth, per-sample behaviour."""

import pytest
import torch

from crbp_d2.recurrence import AffineStep, NeumannSeries


def diagonal(*rates):
    """vjp of h' = rate h, one rate a sample."""
    factors = torch.tensor(rates, dtype=torch.float64)[:, None]
    return lambda v: tuple(part * factors for part in v)


def ones(samples, size=3):
    return (torch.ones(samples, size, dtype=torch.float64),)


def solve(series, vjp, g):
    found = series.solve(AffineStep(vjp, g), g)
    return found.state, found.stats


def geometric(rate, terms):
    return sum(rate**k for k in range(terms + 1))


def test_tolerance_stops_each_sample_at_its_own_term():
    (u,), found = solve(NeumannSeries(num_terms=50, tol=0.01), diagonal(0.5, 0.2, 0.0, 0.9), ones(4))
    # The first terms below 0.01 are 0.5^7 = 0.0078, 0.2^3 = 0.008, 0 and 0.9^44 = 0.0097; the next one ends the series.
    assert found.sample_steps.tolist() == [8, 4, 2, 45]
    truth = [geometric(rate, k) for rate, k in zip((0.5, 0.2, 0.0, 0.9), found.sample_steps.tolist(), strict=True)]
    torch.testing.assert_close(u[:, 0], torch.tensor(truth, dtype=torch.float64), rtol=1e-14, atol=0)
    assert not found.growing.any()


def test_a_sample_is_independent_of_slower_and_growing_samples():
    series = NeumannSeries(num_terms=20, tol=1e-3)
    (single,), _ = solve(series, diagonal(0.3), ones(1))
    (batch,), _ = solve(series, diagonal(0.99, 0.3, 3.0), ones(3))
    assert torch.equal(single[0], batch[1])


def test_evaluation_stops_when_all_samples_have():
    calls = 0

    def vjp(v):
        nonlocal calls
        calls += 1
        return tuple(part * 0.1 for part in v)

    solve(NeumannSeries(num_terms=50, tol=0.05), vjp, ones(2))
    assert calls == 3


def test_large_terms_after_a_small_one_are_summed():
    """g J is small, g J^2 large: a single small term says nothing about the rest."""
    jacobian = torch.tensor([[0.0, 1e-4, 0.0], [0.0, 0.0, 5e3], [0.0, 0.0, 0.5]], dtype=torch.float64)
    g = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    (u,), found = solve(NeumannSeries(num_terms=60, tol=1e-3), lambda v: (v[0] @ jacobian,), (g,))
    truth = torch.linalg.solve(torch.eye(3, dtype=torch.float64) - jacobian.T, g.T).T
    torch.testing.assert_close(u, truth, rtol=2e-3, atol=0)
    assert found.converged.all() and found.sample_steps[0] > 2
    # With too few terms for what follows it says so.
    _, short = solve(NeumannSeries(num_terms=2, tol=1e-3), lambda v: (v[0] @ jacobian,), (g,))
    assert not short.converged.any()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_nonfinite_product_is_reported_for_its_sample(bad):
    calls = 0

    def vjp(v):
        nonlocal calls
        calls += 1
        factors = torch.tensor([0.5, bad if calls == 3 else 0.5], dtype=torch.float64)[:, None]
        return tuple(part * factors for part in v)

    (u,), found = solve(NeumannSeries(num_terms=6), vjp, ones(2))
    assert found.nonfinite_step.tolist() == [0, 3] and found.converged.tolist() == [False, False]
    assert u[0, 0] == geometric(0.5, 6) and u[1, 0] == geometric(0.5, 2)


def test_growth_is_counted_and_cut_at_the_smallest_term():
    (u,), found = solve(NeumannSeries(num_terms=15), diagonal(0.9, 3.0, 1.05), ones(3))
    assert found.growing.tolist() == [False, True, True]
    assert found.sample_steps.tolist() == [15, 0, 15]
    truth = torch.tensor([geometric(0.9, 15), 1.0, geometric(1.05, 15)], dtype=torch.float64)
    torch.testing.assert_close(u[:, 0], truth, rtol=1e-14, atol=0)


def test_a_growing_series_keeps_its_shrinking_part():
    matrix = torch.diag(torch.tensor([0.2, 3.0], dtype=torch.float64))
    g = torch.tensor([[1.0, 1e-3]], dtype=torch.float64)
    norms = [torch.linalg.vector_norm(g @ torch.linalg.matrix_power(matrix, k)).item() for k in range(16)]
    smallest = norms.index(min(norms))
    assert 0 < smallest < 15
    (u,), found = solve(NeumannSeries(num_terms=15), lambda v: (v[0] @ matrix,), (g,))
    truth = sum(g @ torch.linalg.matrix_power(matrix, k) for k in range(smallest + 1))
    torch.testing.assert_close(u, truth, rtol=1e-14, atol=0)
    assert found.sample_steps.item() == smallest
    assert found.growing.item()


def test_transient_growth_of_a_contraction_is_summed_in_full():
    matrix = torch.tensor([[0.5, 4.0], [0.0, 0.5]], dtype=torch.float64)
    g = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    (u,), found = solve(NeumannSeries(num_terms=100), lambda v: (v[0] @ matrix,), (g,))
    truth = torch.linalg.solve((torch.eye(2, dtype=torch.float64) - matrix).T, g[0])
    torch.testing.assert_close(u[0], truth, rtol=1e-12, atol=0)
    assert not found.growing.item()


def test_overflow_of_one_sample_leaves_finite_results():
    (u,), found = solve(NeumannSeries(num_terms=15), diagonal(1e200, 0.5), ones(2))
    assert u.isfinite().all()
    assert found.growing.tolist() == [True, False]


def test_products_continue_with_zeros_after_the_cut():
    seen = []

    def vjp(v):
        seen.append(v[0])
        return (v[0] * 20.0,)

    (u,), found = solve(NeumannSeries(num_terms=3), vjp, ones(2))
    assert torch.equal(u, ones(2)[0]) and found.growing.all()
    assert all(term.shape == (2, 3) for term in seen) and [term.any().item() for term in seen] == [True, False, False]


def test_zero_gradient_and_empty_batch():
    (u,), found = solve(NeumannSeries(num_terms=5, tol=0.1), diagonal(0.5), (torch.zeros(1, 3, dtype=torch.float64),))
    assert not u.any()
    assert not found.growing.any()
    (u,), found = solve(NeumannSeries(num_terms=5), lambda v: v, (torch.zeros(0, 3),))
    assert u.shape == (0, 3)
    assert len(found.sample_steps) == 0


@pytest.mark.parametrize("arguments", [{"num_terms": -1}, {"tol": -0.1}, {"tol": 1.0}, {"growth_limit": 1.0}])
def test_bad_arguments_are_refused_by_name(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        NeumannSeries(**arguments)


def test_a_single_small_term_is_not_convergence():
    # From one element to the other by a small entry of J, and back by a large one: 1, 1e-6, 0.5, 0.5e-6, 0.25, ...
    matrix = torch.tensor([[0.0, 5e5], [1e-6, 0.0]], dtype=torch.float64)
    g = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    truth = torch.linalg.solve(torch.eye(2, dtype=torch.float64) - matrix, g.T).T
    for terms, converged in ((1, False), (2, False), (3, False), (30, True), (31, True)):
        solution = NeumannSeries(terms).solve(AffineStep(lambda v: (v[0] @ matrix.T,), (g,)), (g,))
        assert solution.stats.converged.item() == converged, terms
        error = (solution.state[0] - truth).norm() / truth.norm()
        assert error < 1e-3 if converged else error > 0.1


@pytest.mark.parametrize("dtype,bound", [(torch.bfloat16, 0.01), (torch.float16, 0.002)])
def test_a_sum_of_many_terms_is_not_lost_in_half_precision(dtype, bound):
    rate, terms = 0.984375, 400  # exact in both
    g = torch.ones(2, 3, dtype=dtype)
    (found,) = NeumannSeries(terms).solve(AffineStep(lambda v: ((v[0].float() * rate).to(dtype),), (g,)), (g,)).state
    # The terms themselves are rounded, so the truth is their sum in float64.
    term, truth = g, g.double()
    for _ in range(terms):
        term = (term.float() * rate).to(dtype)
        truth = truth + term.double()
    torch.testing.assert_close(found.double(), truth, rtol=bound, atol=0)
    assert found.dtype == dtype
