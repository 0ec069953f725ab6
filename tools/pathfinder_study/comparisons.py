"""What claims about scores are measured by: numbers of every seed of a run, and bounds between them.

N: steps trained with. A bound is decided by the means over seeds; whether it holds whichever seeds are
compared is said beside it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from .records import Record, Study

# The contours that the runs train on, and longer ones.
TRAINED, LONGER = "PF6s", ("PF9s", "PF12s")


@dataclass(frozen=True)
class Spread:
    """Of a number over the seeds of a run."""

    mean: float
    least: float
    greatest: float
    seeds: int


@dataclass(frozen=True)
class Outcome:
    """One verdict.

    values: what was measured, None where it is missing. holds: None where that leaves it open. why: if not.
    spreads: of those values that have several seeds. certain: whether the verdict is the same whichever seeds are
    compared; None: not decided by numbers of seeds, or there is but one. earlier: decided by the shorter trainings.
    """

    values: Mapping[str, float | str | None]
    holds: bool | None
    why: str = ""
    spreads: dict[str, Spread] = field(default_factory=dict)
    certain: bool | None = None
    earlier: bool = False


@dataclass(frozen=True)
class Quantity:
    """A number of every seed of a run."""

    run: str
    text: str
    of: Callable[[Record], float]

    def __str__(self) -> str:
        return f"{self.text} of {self.run}"

    def spread(self, study: Study) -> Spread | None:
        """None where a seed lacks it, or the run has not been run."""
        values = [self.of(record) for record in study[self.run]]
        if not values or not all(map(math.isfinite, values)):
            return None
        return Spread(sum(values) / len(values), min(values), max(values), len(values))


def f1(run: str, multiple: int = 1, spec: str = TRAINED) -> Quantity:
    """F1 after `multiple` N steps."""
    return Quantity(run, f"{spec} F1 at {_times(multiple)}", lambda record: record.f1(spec, multiple))


def best(run: str, spec: str = TRAINED) -> Quantity:
    """The greatest F1 over all t up to 16 N, of each seed at its own t."""
    return Quantity(run, f"{spec} best F1 over t", lambda record: record.best_f1(spec))


def lost(run: str, multiple: int = 4, spec: str = TRAINED) -> Quantity:
    """F1 at N minus F1 at `multiple` N."""
    text = f"{spec} F1 lost from N to {_times(multiple)}"
    return Quantity(run, text, lambda record: record.f1(spec) - record.f1(spec, multiple))


def training_time(run: str) -> Quantity:
    return Quantity(run, "processor seconds", lambda record: record.seconds.get("training", math.nan))


def _times(multiple: int) -> str:
    return "N" if multiple == 1 else f"{multiple} N"


@dataclass(frozen=True)
class Bound:
    """`sign` (left - scale * right - offset) >= 0, or > 0 where `strict`; without `right` it counts as 0."""

    left: Quantity
    right: Quantity | None
    offset: float = 0.0
    scale: float = 1.0
    sign: int = 1
    strict: bool = False

    def __str__(self) -> str:
        size = f"{abs(self.offset):g}"
        if self.right is None:
            words = ("above" if self.strict else "at least") if self.sign > 0 else "at most"
            return f"{self.left} {words} {self.offset:g}"
        if self.scale != 1:
            return f"{self.left} at most {self.scale:g} times {self.right}"
        if self.offset == 0:
            return f"{self.left} {'above' if self.sign > 0 else 'at most'} {self.right}"
        near = "at most" if self.offset * self.sign < 0 else "at least"
        return f"{self.left} {near} {size} {'above' if self.offset > 0 else 'below'} {self.right}"

    def margin(self, left: float, right: float) -> float:
        return self.sign * (left - self.scale * right - self.offset)

    def met(self, left: float, right: float) -> bool:
        margin = self.margin(left, right)
        return margin > 0 or (margin == 0 and not self.strict)


def at_least(left: Quantity, right: Quantity | float, offset: float = 0.0) -> Bound:
    """`left` no more than -offset below `right` (offset < 0), above it (0), or above it by offset (> 0)."""
    if isinstance(right, Quantity):
        return Bound(left, right, offset, strict=offset == 0)
    return Bound(left, None, right)


def above(left: Quantity, bound: float) -> Bound:
    return Bound(left, None, bound, strict=True)


def at_most(left: Quantity, right: Quantity | float, scale: float = 1.0) -> Bound:
    if isinstance(right, Quantity):
        return Bound(left, right, scale=scale, sign=-1)
    return Bound(left, None, right, sign=-1)


def decide(study: Study, bounds: Sequence[Bound], why: Callable[[list[Bound]], str]) -> Outcome:
    """All of the bounds; `why` gets those that are not met."""
    quantities = {str(q): q for bound in bounds for q in (bound.left, bound.right) if q is not None}
    spreads = {name: quantity.spread(study) for name, quantity in quantities.items()}
    known = {name: spread for name, spread in spreads.items() if spread}
    values = {name: known[name].mean if name in known else None for name in spreads}
    if len(known) < len(spreads):
        return Outcome(values, None, spreads=known)

    zero = Spread(0.0, 0.0, 0.0, 1)
    missed, always, never = [], True, False
    for bound in bounds:
        left, right = spreads[str(bound.left)], spreads[str(bound.right)] if bound.right else zero
        if not bound.met(left.mean, right.mean):
            missed.append(bound)
        worst, luckiest = (left.least, right.greatest), (left.greatest, right.least)
        if bound.sign < 0:
            worst, luckiest = luckiest, worst
        always &= bound.met(*worst)
        never |= not bound.met(*luckiest)
    several = any(spread.seeds > 1 for spread in known.values())
    certain = (never if missed else always) if several else None
    return Outcome(values, not missed, why(missed) if missed else "", known, certain)


def decide_values(values: dict[str, float], condition: Callable[[], bool], why: Callable[[], str]) -> Outcome:
    """A verdict on numbers that are not of single seeds; `condition` and `why` are asked where all are finite."""
    known = {name: value if math.isfinite(value) else None for name, value in values.items()}
    holds = None if None in known.values() else bool(condition())
    return Outcome(known, holds, why() if holds is False else "")


def sentences(*parts: str) -> str:
    """Those that are not empty."""
    return " ".join(part for part in parts if part)
