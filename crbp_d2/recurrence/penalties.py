"""What is added to the loss to keep a recurrence contractive."""

import torch
from torch import Tensor

from .state import State, widen

REDUCTIONS = ("mean", "sum")


class LipschitzPenalty:
    """Lipschitz coefficient penalty: the squared positive part of 1^T J - bound (Linsley et al. 2020, section 2.3).

    J is the Jacobian of the last step. 1^T J is one vector-Jacobian product with ones, kept
    differentiable, so that its gradient reaches the cell's parameters. The reduction runs over all
    elements of all tensors of the state together.

    Args:
        bound: lambda, in [0, 1).
        reduction: "mean" (Pathfinder) or "sum" (panoptic).

    Raises:
        ValueError: a bound or reduction outside these.
    """

    def __init__(self, bound: float = 0.9, reduction: str = "mean"):
        if not 0 <= bound < 1:
            raise ValueError(f"LipschitzPenalty: bound must lie in [0, 1), got {bound}")
        if reduction not in REDUCTIONS:
            raise ValueError(f"LipschitzPenalty: reduction must be one of {', '.join(REDUCTIONS)}, got {reduction!r}")
        self.bound = bound
        self.reduction = reduction

    def __call__(self, previous: State, state: State) -> Tensor:
        """The unweighted penalty, a scalar. `state` must have been computed from `previous` with a graph."""
        ones = tuple(torch.ones_like(part) for part in state)
        columns = torch.autograd.grad(state, previous, ones, create_graph=True, allow_unused=True)
        total = sum(
            (widen(column) - self.bound).clamp(min=0).square().sum() for column in columns if column is not None
        )
        if self.reduction == "sum":
            return total
        return total / max(sum(part.numel() for part in previous), 1)

    def __repr__(self) -> str:
        return f"LipschitzPenalty(bound={self.bound}, reduction={self.reduction!r})"
