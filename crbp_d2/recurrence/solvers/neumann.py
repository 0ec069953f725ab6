"""The Neumann series for u = J^T u + g, with J the Jacobian of one step (Linsley et al. 2020, section 2).

It is a `TransposeSolver`: a solver for steps that are affine.
"""

import torch
from torch import Tensor

from crbp_d2.layers.tensors import widen
from crbp_d2.utils.errors import check_number, check_whole

from ..interfaces import Visit
from ..solution import Solution, SolveStats
from ..state import State, add, sample_norm, select
from .base import CONVERGED, AffineStep


class NeumannSeries:
    """u = g + gJ + ... + gJ^K, at most K = `num_terms` Jacobian products; K = 0 is the one-step gradient.

    All decisions are per sample and compare a term's norm with that of the sample's own first term,
    so scaling g (by a loss scale, say) scales u and changes nothing else.

    A sample whose terms end larger than they began is counted as growing. Beyond `growth_limit` its
    result is cut at the smallest term, as one sums an asymptotic series. The limit allows for
    Jacobians whose powers grow at first and shrink later.

    Args:
        num_terms: K.
        tol: stop once two terms in a row are no larger than `tol` times the first, for one alone may be followed by
            large ones (the next term is what the sum still lacks of a solution); 0 always sums K+1 terms.
        growth_limit: a term larger than this times the first ends the sample's series.

    Raises:
        SettingError: num_terms < 0, tol outside [0, 1), growth_limit <= 1.
    """

    stops_at_tol = False

    def __init__(self, num_terms: int = 15, tol: float = 0.0, growth_limit: float = 10.0):
        check_whole("NeumannSeries", least=0, num_terms=num_terms)
        check_number("NeumannSeries", "[0, 1)", tol=tol)
        check_number("NeumannSeries", "(1, inf)", growth_limit=growth_limit)
        self.num_terms = self.steps = num_terms
        self.tol = tol
        self.growth_limit = growth_limit

    def solve(self, step: AffineStep, state: State, steps: int | None = None, visit: Visit | None = None) -> Solution:
        """The partial sum; `state` is not looked at, the series starts with the step's offset g."""
        g = step.offset
        first = sample_norm(g)
        norm, before, smallest = first, first, first
        # Many small terms would be lost in a sum of half precision.
        total = best = tuple(map(widen, g))
        term = g
        previous = total
        terms = torch.zeros(len(first), dtype=torch.long, device=first.device)
        best_terms = terms
        active = torch.ones_like(terms, dtype=torch.bool)
        growing = torch.zeros_like(active)
        nonfinite_step = torch.zeros_like(terms)
        taken = 0
        for _ in range(self.num_terms if steps is None else steps):
            taken += 1
            term = step.linear(term)
            norm, before = torch.where(active, sample_norm(term), norm), torch.where(active, norm, before)
            # Written so that a NaN counts as too large.
            too_large = active & ~(norm <= self.growth_limit * first)
            nonfinite_step = torch.where(too_large & ~norm.isfinite(), taken, nonfinite_step)
            active = active & ~too_large
            growing = growing | too_large
            term = _only(active, term)
            previous, total = total, select(too_large, best, add(total, term))
            terms = torch.where(too_large, best_terms, terms + active)
            new_best = active & (norm <= smallest)
            best = select(new_best, total, best)
            best_terms = torch.where(new_best, terms, best_terms)
            smallest = torch.where(new_best, norm, smallest)
            if visit:
                visit(_like(g, total))
            if self.tol > 0:
                active = active & ~(torch.maximum(norm, before) <= self.tol * first)
                term = _only(active, term)
                if not active.any():
                    break
        growing = growing | (active & (norm > first))
        ratio = torch.where(first == 0, first, norm / first)
        # A single small term may be followed by large ones, unless it is zero.
        last = torch.where(norm == 0, norm, torch.maximum(norm, before))
        converged = (last <= (self.tol or CONVERGED) * first) & ~growing
        stats = SolveStats(taken, terms, ratio, converged, nonfinite_step, growing)
        return Solution(_like(g, previous), _like(g, total), stats)

    def __repr__(self) -> str:
        return f"NeumannSeries(num_terms={self.num_terms}, tol={self.tol})"


def _like(g: State, total: State) -> State:
    """The sum in the precision of g."""
    return tuple(part.to(like.dtype) for part, like in zip(total, g, strict=True))


def _only(active: Tensor, term: State) -> State:
    """The term, zero for samples that are done."""
    return select(active, term, tuple(part.new_zeros(()).expand_as(part) for part in term))
