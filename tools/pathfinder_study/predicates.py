"""Predicates on the records of a study: each renders its metric and decides a claim by the means over seeds.

N: steps trained with. Only runs of at least CONVERGED iterations count.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from .figure_style import name_of
from .records import Record, Study
from .state_space import state_space

CONVERGED = 4000
# Contours that the runs train on, and longer ones.
TRAINED, LONGER = "PF6s", ("PF9s", "PF12s")
# F1 that a rule may lose and still keep its quality; level of the Kolmogorov-Smirnov tests.
LOST, ALPHA = 0.03, 0.01


@dataclass(frozen=True)
class Spread:
    """A number over the seeds of a run."""

    mean: float
    minimum: float
    maximum: float
    seeds: int

    def __str__(self) -> str:
        return spread_cell(self)


def spread_of(values: Sequence[float]) -> Spread | None:
    """None without values, or if one is not finite."""
    if not values or not all(map(math.isfinite, values)):
        return None
    return Spread(sum(values) / len(values), min(values), max(values), len(values))


def spread_cell(spread: Spread | None, digits: int = 3, counted: bool = True) -> str:
    """Mean, with the range and by default the number of several seeds; "-" for None."""
    if spread is None:
        return "-"
    values = spread.mean, spread.minimum, spread.maximum
    # Three decimals of a p value or a penalty may all be 0.
    tiny = 0 < abs(spread.maximum) < 0.5 * 10**-digits
    mean, low, high = (f"{value:.0e}" if tiny else f"{value:.{digits}f}" for value in values)
    count = f", {spread.seeds} seeds" if counted else ""
    return mean if spread.seeds == 1 else f"{mean} ({low} to {high}{count})"


@dataclass(frozen=True)
class Outcome:
    """The values of a claim and whether it holds; None while a run is missing."""

    values: Mapping[str, Spread | None]
    holds: bool | None

    @property
    def verdict(self) -> str:
        return {True: "holds", False: "**fails**", None: "not run"}[self.holds]


@dataclass(frozen=True)
class Quantity:
    """A number of every seed of a run."""

    run: str
    text: str
    of: Callable[[Record], float] = field(compare=False)

    def __str__(self) -> str:
        return f"{self.text} of {name_of(self.run)}"

    def spread(self, study: Study) -> Spread | None:
        """None while a converged record is missing, or a seed lacks the number."""
        return spread_of([self.of(record) for record in study[self.run] if record.iterations >= CONVERGED])


def f1(run: str, multiple: int = 1, spec: str = TRAINED) -> Quantity:
    """F1 after `multiple` N steps."""
    return Quantity(run, f"{spec} F1 at {times(multiple)}", lambda record: record.f1(spec, multiple))


def best(run: str, spec: str = TRAINED) -> Quantity:
    """Maximum F1 over all t up to 16 N, of each seed at its own t."""
    return Quantity(run, f"{spec} F1 at the best t", lambda record: record.best_f1(spec))


def lost(run: str, multiple: int = 4, spec: str = TRAINED) -> Quantity:
    """F1 at N minus F1 at `multiple` N."""
    text = f"{spec} F1 lost to {times(multiple)}"
    return Quantity(run, text, lambda record: record.f1(spec) - record.f1(spec, multiple))


def times(multiple: int) -> str:
    return "N" if multiple == 1 else f"{multiple} N"


def _radius(record: Record) -> float:
    found = record.stability.get("spectral_radius")
    return math.nan if found is None or not found.size else float(found.max())


def _region(record: Record) -> float:
    found = state_space(record)
    return found.region.p if found else math.nan


class Predicate(Protocol):
    @property
    def metric(self) -> str: ...

    def decide(self, study: Study) -> Outcome: ...


@dataclass(frozen=True)
class Bound:
    """`sign` (left - right - offset) >= 0, > 0 where `strict`; a missing `right` is 0.

    every: the worst seed of `left` decides, not the mean.
    """

    left: Quantity
    right: Quantity | None = None
    offset: float = 0.0
    sign: int = 1
    strict: bool = False
    every: bool = False

    @property
    def metric(self) -> str:
        relation = {(1, False): ">=", (1, True): ">", (-1, False): "<=", (-1, True): "<"}[self.sign, self.strict]
        if self.right is None:
            return f"{self.left.text} {relation} {self.offset:g}" + (" in every seed" if self.every else "")
        size = f" {'+' if self.offset > 0 else '-'} {abs(self.offset):g}" if self.offset else ""
        if self.left.text == self.right.text:
            return f"{self.left.text}: {name_of(self.left.run)} {relation} {name_of(self.right.run)}{size}"
        return f"{self.left} {relation} {self.right}{size}"

    def decide(self, study: Study) -> Outcome:
        left, right = self.left.spread(study), self.right.spread(study) if self.right else None
        values = {str(quantity): found for quantity, found in ((self.left, left), (self.right, right)) if quantity}
        if left is None or (self.right and right is None):
            return Outcome(values, None)
        worst = left.minimum if self.sign > 0 else left.maximum
        margin = self.sign * ((worst if self.every else left.mean) - (right.mean if right else 0.0) - self.offset)
        return Outcome(values, margin > 0 or (margin == 0 and not self.strict))


def above(left: Quantity, right: Quantity, by: float = 0.0) -> Bound:
    return Bound(left, right, by, strict=not by)


def close(left: Quantity, right: Quantity, within: float) -> Bound:
    """`left` is at most `within` below `right`."""
    return Bound(left, right, -within)


def keeps(run: str, multiple: int = 4, within: float = LOST, spec: str = TRAINED) -> Bound:
    return Bound(lost(run, multiple, spec), None, within, sign=-1)


def loses(run: str, multiple: int = 4, more_than: float = LOST) -> Bound:
    return Bound(lost(run, multiple), None, more_than, strict=True)


def contracts(run: str) -> Bound:
    return Bound(Quantity(run, "spectral radius at 4 N", _radius), None, 1.0, sign=-1, strict=True, every=True)


def leaves(run: str) -> Bound:
    """Distances to the centroid of the states at N differ between the states at N and at 4 N."""
    return Bound(Quantity(run, "p of equal states at N, 4 N", _region), None, ALPHA, sign=-1, strict=True, every=True)


def stays(run: str) -> Bound:
    return Bound(Quantity(run, "p of equal states at N, 4 N", _region), None, ALPHA, every=True)


@dataclass(frozen=True)
class Separates:
    """The penalty at N is lower for every run that keeps its F1 to 4 N than for every run that does not."""

    runs: tuple[str, ...]

    @property
    def metric(self) -> str:
        return f"penalty at N of rules that lose at most {LOST} F1 < that of the others"

    def decide(self, study: Study) -> Outcome:
        penalties = {run: Quantity(run, "penalty", lambda r: r.value("penalty")).spread(study) for run in self.runs}
        losses = {run: lost(run).spread(study) for run in self.runs}
        values = {f"penalty of {name_of(run)}": found for run, found in penalties.items()}
        if None in (*penalties.values(), *losses.values()):
            return Outcome(values, None)
        keeping = [penalties[run].mean for run in self.runs if losses[run].mean <= LOST]
        losing = [penalties[run].mean for run in self.runs if losses[run].mean > LOST]
        return Outcome(values, max(keeping) < min(losing) if keeping and losing else None)


def decide_all(study: Study, predicates: Sequence[Predicate]) -> Outcome:
    """All of the predicates."""
    outcomes = [predicate.decide(study) for predicate in predicates]
    values = {name: found for outcome in outcomes for name, found in outcome.values.items()}
    verdicts = [outcome.holds for outcome in outcomes]
    return Outcome(values, None if None in verdicts else all(verdicts))
