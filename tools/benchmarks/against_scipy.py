"""Function evaluations of Anderson and Broyden until a residual, compared with scipy's. Nothing here is a time.

D: elements of the state.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy import optimize
from torch import Tensor

from crbp_d2.cells import HGRUCell
from crbp_d2.recurrence import Anderson, Broyden

from .tables import Table

TOL, MOST, MEMORY = 1e-6, 2000, 5
Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Evaluations:
    """Evaluations of one problem until ||F(h) - h|| / ||F(h)|| is at most TOL; None: not within MOST."""

    problem: str
    anderson: int | None
    scipy_anderson: int | None
    broyden: int | None
    scipy_broyden: int | None


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _linear(matrix: Tensor) -> tuple[Map, Tensor]:
    drive = torch.randn(len(matrix), generator=_generator(), dtype=torch.float64)
    return lambda h: matrix @ h + drive, torch.zeros_like(drive)


def _symmetric(rate: float, size: int = 40) -> tuple[Map, Tensor]:
    """Eigenvalues spread evenly from 0 to `rate`."""
    basis, _ = torch.linalg.qr(torch.randn(size, size, generator=_generator(), dtype=torch.float64))
    return _linear(basis @ torch.diag(torch.linspace(0, rate, size, dtype=torch.float64)) @ basis.T)


def _rotation(rate: float, size: int = 40) -> tuple[Map, Tensor]:
    """Pairs of elements turned by angles spread over the circle, and shrunk by `rate`."""
    blocks = []
    for angle in torch.linspace(0.1, math.pi, size // 2, dtype=torch.float64).tolist():
        cos, sin = math.cos(angle), math.sin(angle)
        blocks.append(rate * torch.tensor([[cos, -sin], [sin, cos]], dtype=torch.float64))
    return _linear(torch.block_diag(*blocks))


def _expansive(rate: float, size: int = 40) -> tuple[Map, Tensor]:
    """Eigenvalues of which the largest, `rate`, is above 1, where plain steps diverge."""
    values = torch.cat([torch.linspace(-0.5, 0.8, size - 1, dtype=torch.float64), torch.tensor([rate]).double()])
    basis, _ = torch.linalg.qr(torch.randn(size, size, generator=_generator(), dtype=torch.float64))
    return _linear(basis @ torch.diag(values) @ basis.T)


def _tanh(rate: float = 0.9, size: int = 40) -> tuple[Map, Tensor]:
    weight = torch.randn(size, size, generator=_generator(), dtype=torch.float64)
    weight = rate * weight / torch.linalg.matrix_norm(weight, ord=2)
    drive = torch.randn(size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return lambda h: torch.tanh(weight @ h + drive), torch.zeros(size, dtype=torch.float64)


def _hgru() -> tuple[Map, Tensor]:
    torch.manual_seed(0)
    cell = HGRUCell(4, 5, norm="GN", timescale=4).double()
    drive = torch.randn(1, 4, 12, 12, generator=_generator(), dtype=torch.float64)
    return lambda h: cell(drive, (h.view_as(drive),))[0].flatten(), torch.zeros(drive.numel(), dtype=torch.float64)


PROBLEMS: dict[str, Callable[[], tuple[Map, Tensor]]] = {
    "symmetric, 0.9": lambda: _symmetric(0.9),
    "symmetric, 0.999": lambda: _symmetric(0.999),
    "rotation, 0.99": lambda: _rotation(0.99),
    "tanh": _tanh,
    "expansive, 1.05": lambda: _expansive(1.05),
    "hGRU": _hgru,
}


@torch.no_grad()
def compare_with_scipy() -> list[Evaluations]:
    """Every problem by all four."""
    rows = []
    for name, make in PROBLEMS.items():
        step, start = make()
        ours = [_ours(solver, step, start) for solver in (Anderson(MEMORY, tol=TOL, max_steps=MOST), _broyden())]
        theirs = [_scipy(step, start, optimize.anderson, M=MEMORY), _scipy(step, start, optimize.broyden1)]
        rows.append(Evaluations(name, ours[0], theirs[0], ours[1], theirs[1]))
    return rows


def _broyden() -> Broyden:
    return Broyden(memory=MOST, tol=TOL, max_steps=MOST)


def _ours(solver: Anderson | Broyden, step: Map, start: Tensor) -> int | None:
    stats = solver.solve(lambda state: (step(state[0][0])[None],), (start[None],)).stats  # type: ignore[arg-type]
    return int(stats.sample_steps) if stats.converged.all() else None


def _scipy(step: Map, start: Tensor, method: Callable, **settings: object) -> int | None:
    taken = 0

    class Reached(Exception):
        pass

    def residual(h: np.ndarray) -> np.ndarray:
        nonlocal taken
        taken += 1
        new = step(torch.from_numpy(np.asarray(h, dtype=np.float64))).numpy()
        change = new - h
        if np.linalg.norm(change) <= TOL * np.linalg.norm(new):
            raise Reached
        return change

    try:
        # The first guess of the Jacobian is that of a plain step.
        method(residual, start.numpy(), alpha=1.0, line_search=None, maxiter=MOST, f_tol=0.0, **settings)
    except Reached:
        return taken
    except (optimize.NoConvergence, ValueError, OverflowError):
        return None
    return None


def scipy_table(rows: list[Evaluations]) -> Table:
    """Evaluations by problem and method; "-": not within MOST."""
    headers = ["problem", "Anderson", "scipy's Anderson", "Broyden", "scipy's Broyden"]
    return Table(
        headers,
        [
            [row.problem, *("-" if n is None else n for n in
                            (row.anderson, row.scipy_anderson, row.broyden, row.scipy_broyden))]
            for row in rows
        ],
    )  # fmt: skip
