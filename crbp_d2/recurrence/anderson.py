"""Anderson acceleration.

N: batch; D: elements of a sample's state; M: differences kept.
"""

import torch
from torch import Tensor

from .accelerated import Accelerated, Extrapolation
from .solvers import check_budget


class Anderson(Accelerated):
    """Anderson acceleration (type II), each sample on its own (Walker & Ni 2011, SIAM J. Numer. Anal. 49).

    The next point mixes the last `memory` + 1 points so that their residuals cancel in the least
    squares sense. The least squares problem is regularised relative to its own columns.

    Args:
        memory: differences of earlier points to mix, M.
        damping: share of the step F(x) in the mix, in (0, 1]; the rest is the point x. 1: undamped.
        tol, max_steps: see Accelerated.

    Raises:
        ValueError: values outside these.
    """

    def __init__(self, memory: int = 5, damping: float = 1.0, tol: float = 1e-3, max_steps: int = 20):
        super().__init__(max_steps, tol)
        check_budget("Anderson", memory=memory)
        if not 0 < damping <= 1:
            raise ValueError(f"Anderson: damping must lie in (0, 1], got {damping}")
        self.memory = memory
        self.damping = damping

    def begin(self) -> Extrapolation:
        return _AndersonMixing(self.memory, self.damping)

    def __repr__(self) -> str:
        return f"Anderson(memory={self.memory}, damping={self.damping}, tol={self.tol}, max_steps={self.steps})"


class _AndersonMixing(Extrapolation):
    def __init__(self, memory: int, damping: float):
        self.memory = memory
        self.damping = damping
        self.last: tuple[Tensor, Tensor] | None = None
        self.point_changes: list[Tensor] = []  # N x D each
        self.residual_changes: list[Tensor] = []

    def propose(self, x: Tensor, f: Tensor) -> Tensor:
        residual = f - x
        if self.last is not None:
            last_x, last_residual = self.last
            self.point_changes = [*self.point_changes, x - last_x][-self.memory :]
            self.residual_changes = [*self.residual_changes, residual - last_residual][-self.memory :]
        self.last = x, residual
        mixed = x + self.damping * residual
        if not self.point_changes:
            return mixed
        columns = torch.stack(self.residual_changes, dim=1)  # N x M x D
        shift = torch.stack(self.point_changes, dim=1) + self.damping * columns
        return mixed - torch.einsum("nm,nmd->nd", _least_squares(columns, residual), shift)


def _least_squares(columns: Tensor, target: Tensor) -> Tensor:
    """Weights w (N x M) that make sum_m w_m columns_m (N x M x D) the closest to `target` (N x D).

    Columns are brought to unit length first: they shrink as a solve converges, and the regularisation
    must not depend on their size.
    """
    length = columns.norm(dim=2)
    length = torch.where(length == 0, 1, length)
    unit = columns / length[..., None]
    gram = torch.einsum("nmd,nkd->nmk", unit, unit)
    gram.diagonal(dim1=1, dim2=2).add_(10 * torch.finfo(gram.dtype).eps)
    weights, _ = torch.linalg.solve_ex(gram, torch.einsum("nmd,nd->nm", unit, target)[..., None])
    return weights[..., 0] / length
