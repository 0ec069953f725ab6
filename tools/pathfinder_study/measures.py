"""What claims about scores are measured by: functions from the study's records to values and a verdict.

N: steps trained with. A verdict is None where a value is missing, because a run is or because it is not finite. A
verdict of False comes with sentences on why, chosen by the values.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from .dynamics import (
    LOST,
    best_f1,
    describe,
    describe_seeds,
    describe_sizes,
    describe_training,
    lost_f1,
    mean_f1,
)
from .records import Study

# F1 within which two rules are close.
CLOSE = 0.03


@dataclass(frozen=True)
class Outcome:
    """One verdict.

    values: what was measured, None where it is missing. holds: None where that leaves it open. why: if not.
    margin: F1 between what was measured and the bound, negative where the claim fails; None: not decided by F1.
    """

    values: dict[str, float | str | None]
    holds: bool | None
    why: str = ""
    margin: float | None = None


def decide(values: dict[str, float], condition: Callable[[], bool], why: Callable[[], str]) -> Outcome:
    """`condition` and `why` are asked only where every value is finite."""
    known = {name: value if math.isfinite(value) else None for name, value in values.items()}
    holds = None if None in known.values() else bool(condition())
    return Outcome(known, holds, why() if holds is False else "")


def decide_by(
    values: dict[str, float], margin: Callable[[], float], why: Callable[[], str], *, at_bound: bool = False
) -> Outcome:
    """Likewise, by an F1 above a bound, or (`at_bound`) at it."""
    found = decide(values, lambda: margin() > 0 or (at_bound and margin() == 0), why)
    return found if found.holds is None else replace(found, margin=margin())


def sentences(*parts: str) -> str:
    """Those that are not empty."""
    return " ".join(part for part in parts if part)


def beyond_seeds(study: Study, better: str, worse: str) -> Outcome:
    """Every seed of one run above every seed of the other, with two seeds of each at least."""
    scores = {run: [record.f1(study.specs[0]) for record in study[run]] for run in (better, worse)}
    enough = all(len(found) >= 2 for found in scores.values())
    least, greatest = (min(scores[better]), max(scores[worse])) if enough else (math.nan, math.nan)
    values = {run: mean_f1(study, run) for run in (better, worse)}
    values |= {f"least {better}": least, f"greatest {worse}": greatest}

    def why() -> str:
        side = "lies within the spread of the seeds" if values[better] > values[worse] else "is not in its favour"
        return sentences(
            f"The difference of {values[better] - values[worse]:+.3f} {side}.",
            describe_seeds(study, better, worse),
            describe_training(study, better, worse),
            describe(study, worse),
        )

    return decide(values, lambda: least > greatest, why)


def above(study: Study, better: str, worse: Sequence[str], bound: float = 0.0) -> Outcome:
    """F1 of one run above those of others by more than `bound`."""
    values = {run: mean_f1(study, run) for run in (better, *worse)}

    def why() -> str:
        differences = ", ".join(f"{values[better] - values[run]:+.3f} to {run}" for run in worse)
        return sentences(
            f"The difference is {differences}.",
            describe_sizes(study, better, *worse),
            describe_seeds(study, better, *worse),
            describe_training(study, better, *worse),
        )

    return decide_by(values, lambda: min(values[better] - values[run] for run in worse) - bound, why)


def close(study: Study, run: str, reference: str) -> Outcome:
    """F1 of a run at most CLOSE below that of another."""
    found = above(study, run, (reference,), -CLOSE)
    return replace(found, why=sentences(found.why, describe(study, run)) if found.why else "")


def no_better(study: Study, run: str, reference: str) -> Outcome:
    """F1 of a run at most that of another."""
    values = {name: mean_f1(study, name) for name in (run, reference)}

    def why() -> str:
        return sentences(
            f"It is {values[run] - values[reference]:.3f} better.",
            describe(study, run),
            describe(study, reference),
            describe_training(study, run, reference),
        )

    return decide_by(values, lambda: values[reference] - values[run], why, at_bound=True)


def above_all(study: Study, better: Sequence[str], worse: str) -> Outcome:
    """F1 of several runs above that of one with about their parameters."""
    values = {run: mean_f1(study, run) for run in (*better, worse)}

    def why() -> str:
        short = [run for run in better if values[run] <= values[worse]]
        return sentences(
            f"{' and '.join(short)} stay below {worse}.",
            describe_sizes(study, *better, worse),
            describe_seeds(study, *better, worse),
            describe_training(study, *better, worse),
        )

    return decide_by(values, lambda: min(values[run] for run in better) - values[worse], why)


def _at_both(study: Study, run: str) -> dict[str, float]:
    return {f"{run} at N": mean_f1(study, run), f"{run} at 4 N": mean_f1(study, run, multiple=4)}


def keeps(study: Study, run: str) -> Outcome:
    """At most LOST of F1 lost from N to 4 N."""
    return decide_by(_at_both(study, run), lambda: LOST - lost_f1(study, run), lambda: _lost(study, run), at_bound=True)


def loses(study: Study, run: str) -> Outcome:
    """More than LOST of F1 lost from N to 4 N."""
    return decide_by(_at_both(study, run), lambda: lost_f1(study, run) - LOST, lambda: _lost(study, run))


def loses_less(study: Study, run: str, reference: str) -> Outcome:
    values = _at_both(study, run) | _at_both(study, reference)
    return decide_by(
        values,
        lambda: lost_f1(study, reference) - lost_f1(study, run),
        lambda: sentences(_lost(study, run), _lost(study, reference)),
    )


def _lost(study: Study, run: str) -> str:
    return sentences(f"{run} loses {lost_f1(study, run):.3f} (mean over seeds).", describe(study, run))


def longer(study: Study, better: str, worse: str) -> Outcome:
    """F1 at 4 N on every set of longer contours."""
    return _longer(study, better, worse, lambda run, spec: mean_f1(study, run, spec, 4))


def longer_at_best(study: Study, better: str, worse: str) -> Outcome:
    """Likewise with the best number of steps."""
    return _longer(study, better, worse, lambda run, spec: best_f1(study, run, spec))


def _longer(study: Study, better: str, worse: str, score: Callable[[str, str], float]) -> Outcome:
    specs = study.specs[1:]
    values = {f"{run} {spec}": score(run, spec) for spec in specs for run in (better, worse)}
    if not specs:
        return Outcome({better: None, worse: None}, None)

    def why() -> str:
        trained = study.specs[0]
        differences = ", ".join(f"{values[f'{better} {s}'] - values[f'{worse} {s}']:+.3f} on {s}" for s in specs)
        return sentences(
            f"The difference is {differences}; on {trained} at N it is "
            f"{mean_f1(study, better) - mean_f1(study, worse):+.3f}.",
            describe(study, better),
            describe(study, worse),
        )

    return decide_by(values, lambda: min(values[f"{better} {s}"] - values[f"{worse} {s}"] for s in specs), why)
