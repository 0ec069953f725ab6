"""The Neumann series for u = J^T u + g, with J the Jacobian of one step (Linsley et al. 2020, section 2).

It is a `TransposeSolver`: a solver for steps that are affine.
"""

import torch
from torch import Tensor

from crbp_d2.layers.tensors import widen
from crbp_d2.utils.errors import check_number, check_whole

from ..interfaces import SampleStats, Solution, SolveStats, Visit
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
        tol: stop once two terms in a row are no larger than `tol` times the first, as a single one may be followed by
            large ones (the next term is what the sum still lacks of a solution); 0 always sums K+1 terms.
        growth_limit: a term larger than this times the first ends the sample's series.

    Raises:
        SettingError: num_terms < 0, tol outside [0, 1), growth_limit <= 1.
    """

    stops_at_tol = False

    def __init__(self, num_terms: int = 15, tol: float = 0.0, growth_limit: float = 10.0):
        check_whole("NeumannSeries", minimum=0, num_terms=num_terms)
        check_number("NeumannSeries", "[0, 1)", tol=tol)
        check_number("NeumannSeries", "(1, inf)", growth_limit=growth_limit)
        self.num_terms = self.steps = num_terms
        self.tol = tol
        self.growth_limit = growth_limit

    def solve(self, step: AffineStep, state: State, steps: int | None = None, visit: Visit | None = None) -> Solution:
        """The partial sum; `state` is ignored, the series starts with the step's offset g."""
        g = step.offset
        first = sample_norm(g)
        limit = self.growth_limit * first
        zero = tuple(part.new_zeros(()).expand_as(part) for part in g)
        # Many small terms would be lost in a sum of half precision.
        total = best = previous = tuple(map(widen, g))
        term, smallest = g, first
        active = within = torch.ones_like(first, dtype=torch.bool)
        norms = [first]
        count = self.num_terms if steps is None else steps
        for number in range(1, count + 1):
            term = step.linear(term)
            norm = sample_norm(term)
            norms.append(norm)
            # Written so that a NaN counts as too large.
            within = within & (norm <= limit)
            active = active & within if self.tol > 0 else within
            term = select(active, term, zero)
            previous, total = total, add(total, term)
            if number < count:
                smaller = active & (norm <= smallest)
                best, smallest = select(smaller, total, best), torch.where(smaller, norm, smallest)
            if visit:
                visit(_like(g, total))
            if self.tol > 0:
                active = active & ~(torch.maximum(norm, norms[-2]) <= self.tol * first)
                term = select(active, term, zero)
                if not active.any():
                    break
        stats = SolveStats(len(norms) - 1, lambda: self._statistics(torch.stack(norms)))
        return Solution(_like(g, previous), _like(g, select(within, total, best)), stats)

    def _statistics(self, norms: Tensor) -> SampleStats:
        """Statistics of a series whose terms have these norms, (T + 1) x N."""
        count, first = len(norms) - 1, norms[0]
        places = torch.arange(count + 1, device=norms.device)[:, None]
        too_large = (places > 0) & ~(norms <= self.growth_limit * first)
        ends = too_large | (places == count)
        if self.tol > 0:
            ends[1:] |= torch.maximum(norms[1:], norms[:-1]) <= self.tol * first
        # The last term of each sample: the first that grew too large, or the second small one in a row.
        last = ends.to(torch.uint8).argmax(dim=0)
        cut = too_large.gather(0, last[None])[0]
        norm, before = (norms.gather(0, index[None])[0] for index in (last, (last - 1).clamp(min=0)))
        usable = torch.where((places <= last) & ~too_large, norms, torch.inf)
        # Among equal norms the last one, whose sum holds more terms.
        smallest = count - usable.flip(0).argmin(dim=0)
        growing = cut | (norm > first)
        # A single small term may be followed by large ones, unless it is zero.
        end = torch.where(norm == 0, norm, torch.maximum(norm, before))
        converged = (end <= (self.tol or CONVERGED) * first) & ~growing
        terms, ratio = torch.where(cut, smallest, last), torch.where(first == 0, first, norm / first)
        nonfinite_step = torch.where(cut & ~norm.isfinite(), last, 0)
        return SampleStats(terms, ratio, converged, nonfinite_step, growing)

    def __repr__(self) -> str:
        return f"NeumannSeries(num_terms={self.num_terms}, tol={self.tol})"


def _like(g: State, total: State) -> State:
    """The sum in the precision of g."""
    return tuple(part.to(like.dtype) for part, like in zip(total, g, strict=True))
