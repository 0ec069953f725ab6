"""What the measurements say about how a run works, in sentences that the values choose.

N: steps trained with; T = 4 N.
"""

import math
from collections.abc import Sequence

import numpy as np

from .comparisons import Bound
from .records import Record, Study

# A last step that changes the state by less has settled.
SETTLED = 0.01
# F1 that a rule may lose from N to 4 N steps and still keep its quality.
LOST = 0.03


def mean_f1(study: Study, run: str, spec: str | None = None, multiple: int = 1) -> float:
    """Mean over seeds of F1 after `multiple` N steps, by default on the trained contours; nan where not run."""
    spec = spec or (study.specs[0] if study.specs else "")
    return mean([record.f1(spec, multiple) for record in study[run]])


def lost_f1(study: Study, run: str) -> float:
    """F1 at N minus that at 4 N, on the trained contours."""
    return mean_f1(study, run) - mean_f1(study, run, multiple=4)


def mean_value(study: Study, run: str, name: str) -> float:
    """Mean over seeds of a figure of `stability`."""
    return mean([record.value(name) for record in study[run]])


def mean(values: list[float]) -> float:
    """nan of no values."""
    return sum(values) / len(values) if values else math.nan


def describe(study: Study, run: str) -> str:
    """How quality and state of a run go on past the trained steps."""
    record, spec = study.first(run), study.specs[0] if study.specs else ""
    if record is None or spec not in record.quality or record.steps is None:
        return ""
    scores, far = record.quality[spec], record.far
    best = int(scores.f1.argmax())
    text = (
        f"{run} (seed {record.seed}) has F1 {record.f1(spec):.3f} at t = {record.steps}, at best {scores.f1[best]:.3f} "
        f"at t = {scores.steps[best]}, and {record.f1(spec, 4):.3f} at t = {far}."
    )
    return f"{text} {_movement(record)}".strip()


def _movement(record: Record) -> str:
    residual, radius = record.stability.get("residual", np.empty(0)), record.value("spectral_radius")
    parts = []
    if len(residual) >= (record.far or 0) > 0 and np.isfinite(residual).all() and math.isfinite(radius):
        last = residual[record.far - 1]
        # Also where a run is evaluated by a solver: these are of the cell's own steps.
        parts.append(
            f"Plain step {record.steps} changes the state by {residual[record.steps - 1]:.2%}, step {record.far} by "
            f"{last:.2%}, and at the last state it {'contracts' if radius < 1 else 'does not contract'} "
            f"(spectral radius {radius:.3f}): {_mechanism(record, last < SETTLED and radius < 1)}."
        )
    if math.isfinite(penalty := record.value("penalty")):
        parts.append(f"The penalty at t = {record.steps} is {penalty:.2g}.")
    return " ".join(parts)


def _mechanism(record: Record, settled: bool) -> str:
    spec = next(iter(record.quality))
    kept = record.f1(spec) - record.f1(spec, 4) <= LOST
    if settled:
        rest = "near enough to where the readout was trained" if kept else "but not where the readout was trained"
        return f"the states come to rest, {rest}"
    if kept:
        return "the states have not come to rest, but stay where the readout tells them apart"
    return "the states have not come to rest, and meet a readout that was not trained on them"


def series_lacks(study: Study, run: str) -> str:
    """What keeps a rule with a Neumann series from the quality of others, by the step's radius where its runs end.

    "" where it has not run.
    """
    record = study.first(run)
    if record is None or not record.steps or not math.isfinite(radius := record.value("spectral_radius")):
        return ""
    if radius < 1:
        reason = (
            "The step contracts, so that the gradient is that of a fixed point; but what one place tells another fades "
            f"by up to {radius:.2f} a step, to {radius**record.steps:.2f} within N steps, over which a contour is "
            "traced."
        )
    else:
        reason = (
            f"The step does not contract, as the series assumes: each of its terms is up to {radius:.2f} times the one "
            "before, so that training follows another gradient than that of the loss."
        )
    return f"{describe(study, run)} {reason}"


def mechanism(study: Study, missed: Sequence[Bound]) -> str:
    """By how much bounds are missed, and how the runs they compare go on past the trained steps."""
    differences, runs = [], {}
    for bound in missed:
        right = bound.right.spread(study).mean if bound.right else 0.0
        differences.append(f"{bound} is missed by {-bound.margin(bound.left.spread(study).mean, right):.3g}")
        runs |= {quantity.run: None for quantity in (bound.left, bound.right) if quantity}
    return " ".join([f"{'; '.join(differences)}.", *filter(None, (describe(study, run) for run in runs))])
