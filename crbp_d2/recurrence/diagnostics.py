"""What a cell does near a state: functions of cell, drive and state that know neither rule nor model.

N: batch; T: steps; D: elements of a sample's state. Cells are run as they are; a cell whose norm mixes
the samples of a batch (batch norm) is measured with the batch it is given.
"""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from .interfaces import Cell
from .penalties import LipschitzPenalty
from .scope import solve_scope
from .state import State, flatten, relative_change, sample_norm, unflatten, vjp

# Up to this many elements the dense eigenvalues are found faster than the leading ones by iteration.
DENSE = 64


@torch.no_grad()
@solve_scope()
def trajectory(cell: Cell, drive: Tensor, steps: int, state: State | None = None) -> list[State]:
    """The states h_0 ... h_T of T = `steps` plain steps, from `state` or the cell's initial one."""
    states = [cell.initial_state(drive) if state is None else state]
    for _ in range(steps):
        states.append(cell(drive, states[-1]))
    return states


def residuals(cell: Cell, drive: Tensor, steps: int, state: State | None = None) -> Tensor:
    """||h_t - h_{t-1}|| / ||h_t|| at each of `steps` plain steps: T x N."""
    states = trajectory(cell, drive, steps, state)
    return torch.stack([relative_change(a, b) for a, b in zip(states, states[1:], strict=False)])


def contraction(cell: Cell, drive: Tensor, steps: int, state: State | None = None) -> Tensor:
    """||h_{t+1} - h_t|| / ||h_t - h_{t-1}|| along a run of `steps` plain steps: (T - 1) x N.

    Below 1 the run contracts; the last rows approach the spectral radius unless the leading
    eigenvalues are a complex pair, about which they oscillate. 0 where the run stands still.

    Raises:
        ValueError: steps < 2.
    """
    if steps < 2:
        raise ValueError(f"contraction compares two changes of the state, so steps must be at least 2, got {steps}")
    states = trajectory(cell, drive, steps, state)
    changes = torch.stack(
        [sample_norm(tuple(y - x for x, y in zip(a, b, strict=True))) for a, b in zip(states, states[1:], strict=False)]
    )
    return torch.where(changes[:-1] == 0, 0, changes[1:] / changes[:-1])


def lipschitz_coefficient(
    cell: Cell, drive: Tensor, state: State, bound: float = 0.9, reduction: str = "mean"
) -> float:
    """The value of LipschitzPenalty(bound, reduction) for the step at `state`."""
    with torch.enable_grad():
        previous = tuple(part.detach().requires_grad_() for part in state)
        return LipschitzPenalty(bound, reduction)(previous, cell(drive, previous)).item()


def spectral_radius(
    cell: Cell, drive: Tensor, state: State, tol: float = 1e-4, samples: Iterable[int] | None = None
) -> Tensor:
    """Largest modulus of the eigenvalues of J = dF/dh at `state`, per sample: N values, float64.

    Right also where the leading eigenvalues are a complex pair: the leading ones are found by implicitly
    restarted Arnoldi iteration (scipy's, extra `analysis`), small Jacobians are solved densely. Of a cell
    that mixes samples, a sample's J is its diagonal block.

    Args:
        tol: relative accuracy of the eigenvalues.
        samples: the samples wanted, by their places in the batch; None: all.

    Raises:
        ImportError: scipy is not installed.
        ValueError: J is not finite.
        RuntimeError: the iteration did not converge.
    """
    transposed = _TransposedJacobian(cell, drive, state)
    wanted = range(len(drive)) if samples is None else samples
    return torch.tensor([_leading_modulus(transposed, n, tol) for n in wanted], dtype=torch.float64)


class _TransposedJacobian:
    """Products with J^T of one sample, whose eigenvalues are those of J, on numpy vectors."""

    def __init__(self, cell: Cell, drive: Tensor, state: State):
        with torch.enable_grad():
            self.previous = tuple(part.detach().requires_grad_() for part in state)
            self.state = cell(drive.detach(), self.previous)
        self.size = flatten(state).shape[1]
        self.samples = len(drive)

    def product(self, sample: int, vector: np.ndarray) -> np.ndarray:
        like = self.previous
        v = torch.zeros(self.samples, self.size, dtype=torch.float64, device=like[0].device)
        v[sample] = torch.from_numpy(np.asarray(vector, dtype=np.float64).reshape(-1))
        found = vjp(self.state, like, unflatten(v, like), retain_graph=True)
        return flatten(found, like)[sample].double().cpu().numpy()


def _leading_modulus(transposed: _TransposedJacobian, sample: int, tol: float) -> float:
    size = transposed.size
    start = np.random.default_rng(0).standard_normal(size)
    image = transposed.product(sample, start)
    if not np.isfinite(image).all():
        raise ValueError(f"spectral_radius: the Jacobian of sample {sample} is not finite")
    if not image.any():
        return 0.0
    if size <= DENSE:
        rows = np.stack([transposed.product(sample, unit) for unit in np.eye(size)])
        return float(np.abs(np.linalg.eigvals(rows)).max())
    try:
        from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigs
    except ImportError as error:
        raise ImportError(
            "spectral_radius needs scipy for a state of this size: pip install 'crbp_d2[analysis]'"
        ) from error
    operator = LinearOperator((size, size), matvec=lambda v: transposed.product(sample, v), dtype=np.float64)
    # Several values at once: a cluster of equal moduli, such as a complex pair, is then one invariant space.
    try:
        values = eigs(operator, k=4, ncv=40, which="LM", v0=start, tol=tol, return_eigenvectors=False)
    except ArpackNoConvergence as error:
        if not len(error.eigenvalues):
            raise RuntimeError(f"spectral_radius: Arnoldi iteration of sample {sample} did not converge") from error
        values = error.eigenvalues
    return float(np.abs(values).max())
