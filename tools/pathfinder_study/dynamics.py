"""What the measurements say about how a run works, in sentences that the values choose.

N: steps trained with; T = 4 N.
"""

import math

import numpy as np

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


def seed_spread(study: Study) -> tuple[float, int]:
    """The greatest range of F1 at N over the seeds of a run, and the number of runs with several seeds."""
    scores = [[record.f1(study.specs[0]) for record in study[run]] for run in study.runs]
    ranges = [max(found) - min(found) for found in scores if len(found) > 1]
    return max(ranges, default=0.0), len(ranges)


def best_f1(study: Study, run: str, spec: str) -> float:
    """Likewise the greatest F1 after any number of steps up to T, of the mean over seeds."""
    scores = [record.quality[spec].f1 for record in study[run] if spec in record.quality]
    return float(np.mean(scores, axis=0).max()) if scores else math.nan


def mean_value(study: Study, run: str, name: str) -> float:
    """Mean over seeds of a figure of `stability`."""
    return mean([record.value(name) for record in study[run]])


def seconds(study: Study, run: str, name: str = "training") -> float:
    """Mean over seeds; nan where not run."""
    return mean([record.seconds.get(name, math.nan) for record in study[run]])


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
    if len(residual) == record.far and np.isfinite(residual).all() and math.isfinite(radius):
        # Also where a run is evaluated by a solver: these are of the cell's own steps.
        parts.append(
            f"Plain step {record.steps} changes the state by {residual[record.steps - 1]:.2%}, step {record.far} by "
            f"{residual[-1]:.2%}, and at the last state it {'contracts' if radius < 1 else 'does not contract'} "
            f"(spectral radius {radius:.3f}): {_mechanism(record, residual[-1] < SETTLED and radius < 1)}."
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


def describe_sizes(study: Study, *runs: str) -> str:
    """Numbers of parameters, where they differ."""
    sizes = {run: record.parameters for run in runs if (record := study.first(run))}
    if len(set(sizes.values())) < 2:
        return ""
    return f"Parameters: {', '.join(f'{run} {size:,}' for run, size in sizes.items())}."


def describe_training(study: Study, *runs: str) -> str:
    """How far the training of runs has come."""
    parts = []
    for run in runs:
        if record := study.first(run):
            loss = record.last("curve", "loss")
            parts.append(f"{run} {loss:.4f}" if math.isfinite(loss) else f"{run} unknown")
    if not parts:
        return ""
    iterations = sorted({record.iterations for run in runs for record in study[run]})
    return f"Losses at the end of training ({' or '.join(map(str, iterations))} iterations): {', '.join(parts)}."


def describe_seeds(study: Study, *runs: str) -> str:
    """How far the seeds of runs lie apart."""
    parts = []
    for run in runs:
        values = [record.f1(study.specs[0]) for record in study[run]]
        if values:
            parts.append(f"{run} {min(values):.3f} to {max(values):.3f} ({len(values)})")
    return f"F1 at N over the seeds: {', '.join(parts)}." if parts else ""
