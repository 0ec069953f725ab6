"""Dynamics of a cell near a state: functions of cell, drive and state, independent of rule and model.

N: batch; T: steps; D: elements of a sample's state. Cells are run as they are; a cell whose norm mixes
the samples of a batch (batch norm) is measured with the batch it is given.
"""

from collections.abc import Iterable
from numbers import Integral

import numpy as np
import torch
from torch import Tensor

from crbp_d2.layers.cache import many_products, solve_scope
from crbp_d2.utils.errors import SettingError, check_number, check_whole

from .cell_step import CellStep, begin
from .interfaces import Cell
from .penalties import LipschitzPenalty
from .state import State, flatten, relative_change, sample_norm, unflatten, vjp

# Up to this many elements the dense eigenvalues are found faster than the leading ones by iteration.
DENSE = 64
# and up to this many wherever iteration cannot tell the leading ones from the others.
MOST_DENSE = 2048


@torch.no_grad()
@solve_scope()
def trajectory(cell: Cell, drive: Tensor, steps: int, state: State | None = None) -> list[State]:
    """The states h_0 ... h_T of T = `steps` plain steps, from `state` or the cell's initial one.

    Raises:
        SettingError: steps is no whole number.
        ValueError: a drive or state of another shape than the cell's.
    """
    check_whole("trajectory", minimum=0, steps=steps)
    drive, state = begin(cell, drive, state)
    step = CellStep(cell, drive)
    states = [state]
    for _ in range(steps):
        states.append(step(states[-1]))
    return states


def residuals(cell: Cell, drive: Tensor, steps: int, state: State | None = None) -> Tensor:
    """||h_t - h_{t-1}|| / ||h_t|| at each of `steps` plain steps, at least 1: T x N.

    Raises: see trajectory.
    """
    check_whole("residuals", steps=steps)
    states = trajectory(cell, drive, steps, state)
    return torch.stack([relative_change(a, b) for a, b in zip(states, states[1:], strict=False)])


def contraction(cell: Cell, drive: Tensor, steps: int, state: State | None = None) -> Tensor:
    """||h_{t+1} - h_t|| / ||h_t - h_{t-1}|| along a run of `steps` plain steps: (T - 1) x N.

    Below 1 the run contracts; the last rows approach the spectral radius unless the leading
    eigenvalues are a complex pair, about which they oscillate. 0 where the state does not change.

    Raises:
        SettingError: steps < 2, which two changes of the state take.
    """
    check_whole("contraction", minimum=2, steps=steps)
    states = trajectory(cell, drive, steps, state)
    changes = torch.stack(
        [sample_norm(tuple(y - x for x, y in zip(a, b, strict=True))) for a, b in zip(states, states[1:], strict=False)]
    )
    return torch.where(changes[:-1] == 0, 0, changes[1:] / changes[:-1])


def lipschitz_coefficient(
    cell: Cell, drive: Tensor, state: State, bound: float = 0.9, reduction: str = "mean"
) -> float:
    """The value of LipschitzPenalty(bound, reduction) for the step at `state`."""
    with torch.inference_mode(False), torch.enable_grad():
        previous, new = _recorded_step(cell, drive, state)
        return LipschitzPenalty(bound, reduction)(previous, new).item()


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
        SettingError: tol outside (0, 1), a sample that is not in the batch.
        ValueError: J is not finite; a drive or state of another shape than the cell's.
        RuntimeError: the iteration did not converge.
    """
    check_number("spectral_radius", "(0, 1)", tol=tol)
    transposed = _TransposedJacobian(cell, drive, state)
    wanted = range(len(drive)) if samples is None else tuple(samples)
    for n in wanted:
        if isinstance(n, bool) or not isinstance(n, Integral) or not 0 <= n < len(drive):
            raise SettingError("samples", n, f"places in a batch of {len(drive)}, from 0", "spectral_radius")
    return torch.tensor([_leading_modulus(transposed, n, tol) for n in wanted], dtype=torch.float64)


def _recorded_step(cell: Cell, drive: Tensor, state: State) -> tuple[State, State]:
    """The state as inputs of the step that follows, and the step's result with a graph."""
    drive, state = begin(cell, drive.detach(), state)
    previous = tuple(part.detach().requires_grad_() for part in state)
    with many_products():
        return previous, CellStep(cell, drive)(previous)


class _TransposedJacobian:
    """Products with J^T of one sample, whose eigenvalues are those of J, on numpy vectors."""

    def __init__(self, cell: Cell, drive: Tensor, state: State):
        with torch.inference_mode(False), torch.enable_grad():
            self.previous, self.state = _recorded_step(cell, drive, state)
        self.size = flatten(self.previous).shape[1]
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
        return _dense_modulus(transposed, sample)
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
        if size > MOST_DENSE:
            raise RuntimeError(f"spectral_radius: Arnoldi iteration of sample {sample} did not converge") from error
        return _dense_modulus(transposed, sample)
    return float(np.abs(values).max())


def _dense_modulus(transposed: _TransposedJacobian, sample: int) -> float:
    rows = np.stack([transposed.product(sample, unit) for unit in np.eye(transposed.size)])
    return float(np.abs(np.linalg.eigvals(rows)).max())
