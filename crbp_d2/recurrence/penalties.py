"""Penalties that keep a recurrence contractive."""

import torch
from torch import Tensor

from crbp_d2.layers.tensors import widen
from crbp_d2.utils.errors import check_choice, check_number, check_whole

from .state import State, per_sample, sample_norm, vjp

REDUCTIONS = ("mean", "sum")


class LipschitzPenalty:
    """Lipschitz coefficient penalty: the squared positive part of 1^T J - bound (Linsley et al. 2020, section 2.3).

    J is the Jacobian of the last step. 1^T J is one vector-Jacobian product with ones, kept
    differentiable, so that its gradient reaches the cell's parameters. The reduction runs over all
    elements of all tensors of the state together.

    Args:
        bound: lambda, in [0, 1).
        reduction: "sum" (the paper's mask head) or "mean" (its Pathfinder networks).

    Raises:
        SettingError: a bound or reduction outside these.
    """

    def __init__(self, bound: float = 0.9, reduction: str = "sum"):
        _check("LipschitzPenalty", bound, reduction)
        self.bound = bound
        self.reduction = reduction

    def __call__(self, previous: State, state: State) -> Tensor:
        """The unweighted penalty, a scalar. `state` must have been computed from `previous` with a graph."""
        ones = tuple(torch.ones_like(part) for part in state)
        columns = vjp(state, previous, ones, create_graph=True)
        excess = [(widen(column) - self.bound).clamp(min=0).square().sum() for column in columns]
        total = sum(excess[1:], excess[0])
        if self.reduction == "sum":
            return total
        return total / max(sum(part.numel() for part in previous), 1)

    def __repr__(self) -> str:
        return f"LipschitzPenalty(bound={self.bound}, reduction={self.reduction!r})"


class ContractionPenalty:
    """The squared positive part of |v J| / |v| - bound, v brought near the leading direction of J by power iteration.

    The Lipschitz coefficient penalty looks at a signed sum, in which what grows and what shrinks cancel; it can be
    near zero at states that are far from contracting. This one looks at the growth of one vector a sample, which
    starts at random: without power iteration it measures the size of J as Jacobian regularisation does (Bai et al.
    2021, "Stabilizing equilibrium models by Jacobian regularization"), and after a few rounds its spectral radius,
    by which both the run and the Neumann series shrink. v is a constant: the gradient goes through the last
    product only.

    Args:
        bound: in [0, 1).
        reduction: "mean" or "sum" over the samples.
        iterations: rounds of power iteration, Jacobian products without a graph, at least 0.

    Raises:
        SettingError: values outside these.
    """

    def __init__(self, bound: float = 0.9, reduction: str = "sum", iterations: int = 3):
        _check("ContractionPenalty", bound, reduction)
        check_whole("ContractionPenalty", minimum=0, iterations=iterations)
        self.bound = bound
        self.reduction = reduction
        self.iterations = iterations

    def __call__(self, previous: State, state: State) -> Tensor:
        """The unweighted penalty, a scalar. `state` must have been computed from `previous` with a graph."""
        v = _unit(tuple(torch.randn_like(part) for part in state))
        for _ in range(self.iterations):
            v = _unit(vjp(state, previous, v, retain_graph=True))
        growth = sample_norm(vjp(state, previous, v, create_graph=True)).to(widen(state[0]).dtype)
        excess = (growth - self.bound).clamp(min=0).square()
        return excess.sum() if self.reduction == "sum" else excess.mean()

    def __repr__(self) -> str:
        return f"ContractionPenalty(bound={self.bound}, reduction={self.reduction!r}, iterations={self.iterations})"


def _unit(v: State) -> State:
    """Each sample at length 1; what is zero stays zero."""
    norm = sample_norm(v)
    scale = torch.where(norm == 0, norm, 1 / norm)
    return tuple((widen(part) * per_sample(scale, part).to(widen(part).dtype)).to(part.dtype) for part in v)


def _check(owner: str, bound: float, reduction: str) -> None:
    check_number(owner, "[0, 1)", bound=bound)
    check_choice(owner, REDUCTIONS, reduction=reduction)
