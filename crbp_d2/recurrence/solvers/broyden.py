"""Broyden's method.

N: batch; D: elements of a sample's state.
"""

import torch
from torch import Tensor

from crbp_d2.utils.errors import check_whole

from .accelerated import Accelerated, Extrapolation, with_places
from .base import CONVERGED


class Broyden(Accelerated):
    """Broyden's "good" method with limited memory, each sample on its own (Broyden 1965, Math. Comp. 19).

    A quasi-Newton method for F(x) - x = 0. The inverse Jacobian starts as -1, so that the first point
    is a plain step, and is corrected by one rank a step; after `memory` corrections it starts anew.

    Args:
        memory: corrections kept.
        tol, max_steps: see Accelerated.

    Raises:
        SettingError: values outside these.
    """

    def __init__(self, memory: int = 20, tol: float = CONVERGED, max_steps: int = 20):
        super().__init__(max_steps, tol)
        check_whole("Broyden", memory=memory)
        self.memory = memory

    def begin(self) -> Extrapolation:
        return _InverseJacobian(self.memory)

    def __repr__(self) -> str:
        return f"Broyden(memory={self.memory}, tol={self.tol}, max_steps={self.steps})"


class _InverseJacobian(Extrapolation):
    """H = -1 + sum_i u_i v_i^T of each sample, the corrections in two tensors, N x M x D."""

    def __init__(self, memory: int):
        self.memory = memory
        self.last: tuple[Tensor, Tensor] | None = None
        self.kept = 0

    def propose(self, x: Tensor, f: Tensor) -> Tensor:
        residual = f - x
        if self.last is None:
            self.u = self.v = x.new_zeros(len(x), 0, x.shape[1])
        else:
            self.kept %= self.memory
            self._correct(x - self.last[0], residual - self.last[1])
        self.last = x, residual
        return x - self._times(self.u, self.v, residual)

    def _correct(self, point_change: Tensor, residual_change: Tensor) -> None:
        """The smallest change of H that makes it map `residual_change` to `point_change`."""
        mapped = self._times(self.u, self.v, residual_change)
        v = self._times(self.v, self.u, point_change)
        denominator = (v * residual_change).sum(dim=1, keepdim=True)
        smallest = torch.finfo(v.dtype).eps * v.norm(dim=1, keepdim=True) * residual_change.norm(dim=1, keepdim=True)
        usable = denominator.abs() > smallest
        u = torch.where(usable, (point_change - mapped) / torch.where(usable, denominator, 1), 0)
        if self.kept == self.u.shape[1]:
            places = min(self.memory, 2 * self.kept + 2)
            self.u, self.v = with_places(self.u, places), with_places(self.v, places)
        self.u[:, self.kept], self.v[:, self.kept] = u, v
        self.kept += 1

    def _times(self, left: Tensor, right: Tensor, x: Tensor) -> Tensor:
        """(-1 + sum_i left_i right_i^T) x of each sample: N x D."""
        if not self.kept:
            return -x
        weights = torch.bmm(x[:, None], right[:, : self.kept].mT)
        return torch.baddbmm(x[:, None], weights, left[:, : self.kept], beta=-1)[:, 0]
