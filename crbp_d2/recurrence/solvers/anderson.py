"""Anderson acceleration.

N: batch; D: elements of a sample's state; M: differences kept.
"""

import torch
from torch import Tensor

from crbp_d2.utils.errors import check_number, check_whole

from ..state import sample_norm
from .accelerated import Accelerated, Extrapolation, with_places
from .base import CONVERGED

# Differences that a solve allocates at its beginning.
_FIRST_PLACES = 5


class Anderson(Accelerated):
    """Anderson acceleration (type II), each sample on its own (Walker & Ni 2011, SIAM J. Numer. Anal. 49).

    The next point mixes the last `memory` + 1 points so that their residuals cancel as far as
    least squares allow. The least squares problem is regularized relative to its own columns.

    Args:
        memory: differences of earlier points to mix, M.
        damping: fraction of the step F(x) in the mix, in (0, 1]; the rest is the point x. 1: undamped.
        tol, max_steps: see Accelerated.

    Raises:
        SettingError: values outside these.
    """

    def __init__(self, memory: int = 5, damping: float = 1.0, tol: float = CONVERGED, max_steps: int = 20):
        super().__init__(max_steps, tol)
        check_whole("Anderson", memory=memory)
        check_number("Anderson", "(0, 1]", damping=damping)
        self.memory = memory
        self.damping = damping

    def begin(self) -> Extrapolation:
        return _AndersonMixing(self.memory, self.damping)

    def __repr__(self) -> str:
        return f"Anderson(memory={self.memory}, damping={self.damping}, tol={self.tol}, max_steps={self.steps})"


class _AndersonMixing(Extrapolation):
    """The last M differences of residuals, brought to unit length: they shrink as a solve converges, and the
    regularisation must not depend on their size. Each is written once, over the oldest, with its products with
    the others, so that a step reads every difference only where it is mixed in.
    """

    def __init__(self, memory: int, damping: float):
        self.memory = memory
        self.damping = damping
        self.last: tuple[Tensor, Tensor] | None = None
        self.seen = 0

    def propose(self, x: Tensor, f: Tensor) -> Tensor:
        residual = f - x
        if self.last is None:
            self._allocate(x)
        else:
            self._remember(x - self.last[0], residual - self.last[1])
        self.last = x, residual
        mixed = x + self.damping * residual
        kept = min(self.seen, self.memory)
        if not kept:
            return mixed
        gram = self.gram[:, :kept, :kept].clone()
        gram.diagonal(dim1=1, dim2=2).add_(10 * torch.finfo(gram.dtype).eps)
        weights, _ = torch.linalg.solve_ex(gram, _products(residual, self.columns[:, :kept])[..., None])
        return torch.baddbmm(mixed[:, None], weights.mT, self.shifts[:, :kept], alpha=-1)[:, 0]

    def _allocate(self, x: Tensor) -> None:
        n, d = x.shape
        places = min(self.memory, _FIRST_PLACES)
        self.columns, self.shifts = x.new_zeros(n, places, d), x.new_zeros(n, places, d)
        self.gram = x.new_zeros(n, places, places)

    def _grow(self) -> None:
        """Twice as many places, so that a solve of few steps pays for few of a long memory."""
        places = min(self.memory, 2 * self.gram.shape[1])
        self.columns, self.shifts = with_places(self.columns, places), with_places(self.shifts, places)
        self.gram = with_places(with_places(self.gram, places).mT, places)

    def _remember(self, point_change: Tensor, residual_change: Tensor) -> None:
        length = sample_norm((residual_change,))[:, None].to(residual_change.dtype)
        length = torch.where(length == 0, 1, length)
        column = residual_change / length
        place = self.seen % self.memory
        self.seen += 1
        if place == self.columns.shape[1]:
            self._grow()
        self.columns[:, place] = column
        self.shifts[:, place] = point_change / length + self.damping * column
        products = _products(column, self.columns)
        self.gram[:, place] = products
        self.gram[:, :, place] = products


def _products(vector: Tensor, columns: Tensor) -> Tensor:
    """Inner products of `vector` (N x D) with `columns` (N x M x D): N x M."""
    # As a row times a matrix, which CPUs multiply ten times faster than the matrix times a column.
    return torch.bmm(vector[:, None], columns.mT)[:, 0]
