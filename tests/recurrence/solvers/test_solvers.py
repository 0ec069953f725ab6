"""Anderson and Broyden: accuracy, stopping per sample, scale, reports."""

import warnings

import pytest
import torch
from helpers.problems import PROBLEMS, LinearCell, TanhCell, drive_for, flat, iterate

from crbp_d2.cells import GalaHGRUCell
from crbp_d2.recurrence import (
    AffineStep,
    Anderson,
    Broyden,
    FixedSteps,
    Implicit,
    NeumannSeries,
    Recurrence,
    UnconvergedWarning,
    Unrolled,
    learning_rule,
)

ACCELERATED = {
    "anderson": lambda tol=1e-10, max_steps=60: Anderson(tol=tol, max_steps=max_steps),
    "anderson-damped": lambda tol=1e-10, max_steps=60: Anderson(damping=0.7, tol=tol, max_steps=max_steps),
    "anderson-memory-1": lambda tol=1e-10, max_steps=60: Anderson(memory=1, tol=tol, max_steps=max_steps),
    "broyden": lambda tol=1e-10, max_steps=60: Broyden(tol=tol, max_steps=max_steps),
    "broyden-restarted": lambda tol=1e-10, max_steps=60: Broyden(memory=4, tol=tol, max_steps=max_steps),
}
accelerated = pytest.mark.parametrize("make", ACCELERATED.values(), ids=ACCELERATED)


def solve(solver, cell, drive, **kwargs):
    with torch.no_grad():
        return solver.solve(lambda state: cell(drive, state), cell.initial_state(drive), **kwargs)


def random_matrix(size, rate, seed=0):
    """A matrix with spectral radius `rate`."""
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(size, size, generator=generator, dtype=torch.float64)
    return rate * matrix / torch.linalg.eigvals(matrix).abs().max()


@accelerated
@pytest.mark.parametrize("problem", PROBLEMS)
def test_reaches_the_known_fixed_point(problem, make):
    cell = PROBLEMS[problem]()
    drive = drive_for(cell)
    solution = solve(make(), cell, drive)
    truth = flat(iterate(cell, drive, 2000))
    assert solution.stats.converged.all()
    torch.testing.assert_close(flat(solution.state), truth, rtol=0, atol=1e-9)
    plain = solve(FixedSteps(solution.stats.steps), cell, drive)
    assert (flat(solution.state) - truth).norm() < (flat(plain.state) - truth).norm()


@accelerated
def test_solves_the_transposed_problem_through_the_same_call(make):
    matrix = random_matrix(6, 0.9)
    g = (drive_for(LinearCell(matrix)),)
    step = AffineStep(lambda v: (v[0] @ matrix,), g)
    u = make().solve(step, g).state[0]
    truth = torch.linalg.solve(torch.eye(6, dtype=torch.float64) - matrix.T, g[0].T).T
    torch.testing.assert_close(u, truth, rtol=1e-8, atol=0)


def test_transposed_fixed_steps_are_the_neumann_series():
    matrix = random_matrix(6, 0.9)
    g = (drive_for(LinearCell(matrix)),)
    step = AffineStep(lambda v: (v[0] @ matrix,), g)
    plain, series = FixedSteps(7).solve(step, g), NeumannSeries(7).solve(step, g)
    torch.testing.assert_close(plain.state[0], series.state[0], rtol=1e-13, atol=0)


def test_anderson_solves_linear_problems_in_their_dimension():
    """Like GMRES, to which it is equivalent there (Walker & Ni 2011): D + 1 residuals span everything."""
    cell = LinearCell(random_matrix(4, 0.95))
    drive = drive_for(cell)
    truth = torch.linalg.solve(torch.eye(4, dtype=torch.float64) - cell.weight, drive.T).T
    exact = solve(Anderson(memory=10, tol=1e-13, max_steps=6), cell, drive)
    torch.testing.assert_close(exact.state[0], truth, rtol=1e-7, atol=0)
    early = solve(Anderson(memory=10, tol=1e-13, max_steps=4), cell, drive)
    assert (early.state[0] - truth).norm() > 1e-3 * truth.norm()


@pytest.mark.parametrize("memory,damping", [(3, 1.0), (3, 0.6), (7, 1.0)])
def test_points_of_anderson_are_dense_least_squares_solves(memory, damping):
    """Over more steps than it remembers, against Walker & Ni's formula by lstsq."""
    cell = TanhCell(size=12, rate=0.95)
    drive = drive_for(cell)
    solver, points = Anderson(memory, damping, tol=1e-14, max_steps=11), []

    def step(state):
        points.append(state[0].detach())
        return cell(drive, state)

    with torch.no_grad():
        solver.solve(step, cell.initial_state(drive))
        residuals = [cell(drive, (x,))[0] - x for x in points]
    assert len(points) == 11
    for k in range(1, len(points) - 1):
        kept = range(max(k - memory, 0), k)
        dx = torch.stack([points[i + 1] - points[i] for i in kept], dim=2)
        dr = torch.stack([residuals[i + 1] - residuals[i] for i in kept], dim=2)
        weights = torch.linalg.lstsq(dr, residuals[k][..., None]).solution
        expected = points[k] + damping * residuals[k] - ((dx + damping * dr) @ weights)[..., 0]
        torch.testing.assert_close(points[k + 1], expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("steps,places", [(4, 5), (6, 5), (8, 10), (60, 50)])
def test_a_long_memory_costs_what_is_remembered(steps, places, monkeypatch):
    seen = []
    monkeypatch.setattr(Anderson, "begin", lambda self, begin=Anderson.begin: seen.append(begin(self)) or seen[-1])
    cell = TanhCell(size=60, rate=0.999)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        solve(Anderson(memory=50, tol=1e-300, max_steps=steps), cell, drive_for(cell))
    assert seen[0].columns.shape[1] == seen[0].shifts.shape[1] == places
    assert seen[0].gram.shape[1:] == (places, places)


def test_broyden_solves_a_linear_problem_in_twice_its_dimension():
    """Gay's theorem (1979)."""
    cell = LinearCell(random_matrix(4, 0.95))
    drive = drive_for(cell)
    truth = torch.linalg.solve(torch.eye(4, dtype=torch.float64) - cell.weight, drive.T).T
    exact = solve(Broyden(memory=10, tol=1e-13, max_steps=10), cell, drive)
    torch.testing.assert_close(exact.state[0], truth, rtol=1e-7, atol=0)


@pytest.mark.parametrize("solver", [Anderson(tol=1e-10, max_steps=60), Broyden(tol=1e-10, max_steps=60)])
def test_expansive_linear_problems_are_solved_too(solver):
    """Plain iteration diverges there; a root finder with memory for all three directions does not."""
    cell = LinearCell(torch.diag(torch.tensor([1.5, 0.5, -2.0], dtype=torch.float64)))
    drive = torch.ones(1, 3, dtype=torch.float64)
    solution = solve(solver, cell, drive)
    truth = torch.tensor([[-2.0, 2.0, 1 / 3]], dtype=torch.float64)
    torch.testing.assert_close(solution.state[0], truth, rtol=1e-7, atol=0)


@accelerated
def test_a_sample_neither_waits_for_nor_feels_the_others(make):
    weights = torch.stack([random_matrix(5, rate, seed) for seed, rate in enumerate((0.3, 0.97, 0.6))])
    drive = drive_for(TanhCell())
    start = (torch.zeros_like(drive),)

    def step(chosen):
        return lambda h: (torch.einsum("nij,nj->ni", weights[chosen], h[0]).tanh() + drive[chosen],)

    solver = make(tol=1e-6)
    seen = []
    together = solver.solve(step([0, 1, 2]), start, visit=lambda h: seen.append(h[0]))
    assert len(seen) == together.stats.steps == together.stats.sample_steps.max()
    for n in range(3):
        single = solver.solve(step([n]), (start[0][n : n + 1],))
        assert single.stats.sample_steps.item() == together.stats.sample_steps[n]
        torch.testing.assert_close(single.state[0][0], together.state[0][n], rtol=1e-9, atol=1e-12)
        for later in seen[together.stats.sample_steps[n] :]:
            assert torch.equal(later[n], together.state[0][n])
    assert len(set(together.stats.sample_steps.tolist())) > 1


@accelerated
@pytest.mark.parametrize("scale", [2.0**20, 2.0**-20])
def test_scaling_the_problem_scales_the_answer_and_nothing_else(make, scale):
    matrix = random_matrix(6, 0.9)
    g = drive_for(LinearCell(matrix))

    def solved(factor):
        offset = (factor * g,)
        return make(tol=1e-8).solve(AffineStep(lambda v: (v[0] @ matrix,), offset), offset)

    plain, scaled = solved(1.0), solved(scale)
    assert torch.equal(scaled.state[0], scale * plain.state[0])
    assert torch.equal(scaled.stats.sample_steps, plain.stats.sample_steps)


def test_the_state_of_smallest_residual_is_kept():
    solver = Anderson(tol=1e-12, max_steps=7)
    cell = TanhCell(rate=3.0)
    drive = drive_for(cell)
    points = []
    solution = solver.solve(lambda h: points.append((h, cell(drive, h))) or points[-1][1], cell.initial_state(drive))
    residuals = torch.stack([((f[0] - x[0]).norm(dim=1) / f[0].norm(dim=1)) for x, f in points])
    torch.testing.assert_close(solution.stats.residual, residuals.min(dim=0).values, rtol=1e-12, atol=0)
    for n, best in enumerate(residuals.argmin(dim=0).tolist()):
        assert torch.equal(solution.state[0][n], points[best][1][0][n])


@pytest.mark.parametrize("solver", [Anderson, Broyden])
def test_not_converging_is_reported_and_warned_of_once(solver):
    cell = TanhCell(rate=0.99)
    drive = drive_for(cell).requires_grad_()
    recurrence = Recurrence(cell, solver(tol=1e-9, max_steps=4), Implicit(solver(tol=1e-9, max_steps=3)))
    with pytest.warns(UnconvergedWarning, match=r"forward run of 3 of 3.*after 4 steps"):
        output = recurrence(drive)
    assert output.stats.converged.tolist() == [False] * 3
    assert output.stats.steps == 4 and output.stats.sample_steps.tolist() == [4, 4, 4]
    with pytest.warns(UnconvergedWarning, match="transposed solve of 3.*after 3 steps"):
        output.state[0].sum().backward()
    assert output.stats.transpose.converged.tolist() == [False] * 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recurrence(drive).state[0].sum().backward()
    assert drive.grad.isfinite().all()


@pytest.mark.parametrize("rule", ["crbp", "deq", "bptt"])
@pytest.mark.filterwarnings("ignore::crbp_d2.recurrence.UnconvergedWarning")
def test_a_state_that_is_not_finite_is_reported_with_its_step(rule):
    class Bursting(TanhCell):
        """Sample 1 is lost at the third evaluation."""

        count = 0

        def forward(self, drive, state):
            self.count += 1
            (h,) = super().forward(drive, state)
            if self.count == 3:
                h = torch.where(torch.arange(len(h))[:, None] == 1, torch.inf, h)
            return (h,)

    cell = Bursting(rate=0.99)
    stats = learning_rule(rule, cell, steps=6, tol=1e-12)(drive_for(cell)).stats
    assert stats.nonfinite_step.tolist() == [0, 3, 0]
    assert not stats.converged[1] or rule == "deq"


def test_anderson_is_nearer_in_12_evaluations_than_40_steps():
    torch.manual_seed(0)
    cell = GalaHGRUCell(256)
    drive = torch.randn(1, 256, 14, 14)
    exact = solve(Anderson(memory=10, tol=1e-5, max_steps=250), cell, drive)
    truth = flat(exact.state)
    assert exact.stats.converged.all()

    def error(solver):
        return ((flat(solve(solver, cell, drive).state) - truth).norm(dim=1) / truth.norm(dim=1)).max().item()

    assert error(Anderson(memory=5, tol=1e-9, max_steps=12)) < error(FixedSteps(40)) < error(FixedSteps(20))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lower_precision_states_are_extrapolated_in_float32(dtype):
    matrix = random_matrix(6, 0.9)
    offset = (drive_for(LinearCell(matrix)).to(dtype),)
    seen = []

    def linear(v):
        seen.append(v[0].dtype)
        return ((v[0].double() @ matrix).to(dtype),)

    solution = Anderson(tol=2e-2, max_steps=30).solve(AffineStep(linear, offset), offset)
    truth = torch.linalg.solve(torch.eye(6, dtype=torch.float64) - matrix.T, offset[0].double().T).T
    assert solution.state[0].dtype == dtype and set(seen) == {dtype}
    assert (solution.state[0].double() - truth).norm() < 0.1 * truth.norm()


@accelerated
def test_empty_batch(make):
    cell = TanhCell()
    solution = solve(make(), cell, torch.zeros(0, 5, dtype=torch.float64))
    assert solution.state[0].shape == (0, 5) and len(solution.stats.sample_steps) == 0


def test_refusals():
    with pytest.raises(ValueError, match="Anderson: memory is 0"):
        Anderson(memory=0)
    with pytest.raises(ValueError, match=r"Anderson: damping is 0.*\(0, 1\]"):
        Anderson(damping=0)
    with pytest.raises(ValueError, match=r"Broyden: tol is 1.*\(0, 1\)"):
        Broyden(tol=1)
    with pytest.raises(ValueError, match="Broyden: max_steps is 0"):
        Broyden(max_steps=0)
    with pytest.raises(ValueError, match=r"solver is Anderson.*gradient is Unrolled"):
        Recurrence(TanhCell(), Anderson(), Unrolled())
    with pytest.raises(TypeError, match="solver must have .*got NeumannSeries"):
        Recurrence(TanhCell(), NeumannSeries(), Implicit(NeumannSeries()))
    with pytest.raises(ValueError, match="solver is 'Newton'; allowed: .*Anderson"):
        learning_rule("deq", TanhCell(), steps=4, solver="Newton")
