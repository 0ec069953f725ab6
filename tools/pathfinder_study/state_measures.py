"""What claims about states and stability are measured by; see comparisons.

N: steps trained with.
"""

import math
from collections.abc import Callable

import numpy as np

from .comparisons import Outcome, decide_values, sentences
from .dynamics import LOST, describe, lost_f1, mean_value
from .records import Record, Study
from .state_space import StateSpace, compare_drift, state_space

# Level of the Kolmogorov-Smirnov tests.
ALPHA = 0.01
# Trained with the Lipschitz penalty, and without.
PENALIZED = ("hgru_crbp", "hgru_cbptt")
OTHERS = ("hgru_bptt", "hgru_tbptt", "hgru_bptt_every_step", "hgru_rbp")


def separates(study: Study) -> Outcome:
    """The penalty of every rule that keeps its F1 to 4 N below that of every rule that loses it."""
    runs = (*PENALIZED, *OTHERS)
    penalties = {run: mean_value(study, run, "penalty") for run in runs}
    lost = {run: lost_f1(study, run) for run in runs}
    keeping, losing = [r for r in runs if lost[r] <= LOST], [r for r in runs if lost[r] > LOST]
    values = penalties | {f"{run} lost": value for run, value in lost.items()}
    if not keeping or not losing:
        # Nothing to tell apart.
        return Outcome({name: value if math.isfinite(value) else None for name, value in values.items()}, None)

    def why() -> str:
        most, least = max(keeping, key=penalties.get), min(losing, key=penalties.get)
        return (
            f"{most} keeps its F1 (loses {lost[most]:.3f}) at a penalty of {penalties[most]:.2g}, {least} loses "
            f"{lost[least]:.3f} at {penalties[least]:.2g}: the penalty tells which rules were trained with it rather "
            "than which are stable."
        )

    return decide_values(values, lambda: max(penalties[r] for r in keeping) < min(penalties[r] for r in losing), why)


def lowers(study: Study) -> Outcome:
    """The penalty of every rule that is trained with it below that of every other."""
    values = {run: mean_value(study, run, "penalty") for run in (*PENALIZED, *OTHERS)}

    def why() -> str:
        most = max(PENALIZED, key=values.get)
        small = [f"{run} ({values[run]:.2g})" for run in OTHERS if values[run] <= values[most]]
        far = ", ".join(f"{run} {mean_value(study, run, 'penalty_far'):.2g}" for run in values)
        radius = ", ".join(f"{run} {mean_value(study, run, 'spectral_radius'):.2f}" for run in values)
        return (
            f"{' and '.join(small)} have no more penalty than {most} ({values[most]:.2g}). The penalty looks at column "
            f"sums of the Jacobian, which have signs, not at its eigenvalues. Penalty at 4 N: {far}. Spectral radius "
            f"at 4 N: {radius}."
        )

    return decide_values(values, lambda: max(values[r] for r in PENALIZED) < min(values[r] for r in OTHERS), why)


def _spaces(study: Study, run: str) -> list[tuple[Record, StateSpace]]:
    return [(record, space) for record in study[run] if (space := state_space(record))]


def _region(study: Study, run: str, condition: Callable[[float], bool]) -> Outcome:
    spaces = _spaces(study, run)
    values = {
        f"{name} (seed {r.seed})": value
        for r, s in spaces
        for name, value in (("D", s.region.distance), ("p", s.region.p), ("delta", s.region.delta))
    }

    def why() -> str:
        against = [
            f"{r.seed} (D {s.region.distance:.2f}, p {s.region.p:.2g})" for r, s in spaces if not condition(s.region.p)
        ]
        ratios = ", ".join(f"{s.at_far.mean() / s.at_trained.mean():.2f}" for _, s in spaces)
        moves = ", ".join(f"{np.median(s.drift):.2f}" for _, s in spaces)
        return sentences(
            f"Against it: seed {', '.join(against)}.",
            f"The states at 4 N lie {ratios} times as far from the centroid as those at N; they have moved by {moves} "
            "of the spread of the states up to N.",
            describe(study, run),
        )

    found = decide_values(values, lambda: all(condition(s.region.p) for _, s in spaces), why)
    return found if spaces else Outcome({"D": None, "p": None, "delta": None}, None)


def leaves(study: Study, run: str) -> Outcome:
    """The states at 4 N lie at other distances from the centroid than those at N, in every seed."""
    return _region(study, run, lambda p: p < ALPHA)


def stays(study: Study, run: str) -> Outcome:
    return _region(study, run, lambda p: p >= ALPHA)


def drifts_more(study: Study, run: str, reference: str) -> Outcome:
    """The drift from N to 4 N of one run greater than that of another."""
    found = compare_drift(study[reference], study[run])
    if found is None:
        return Outcome({"D": None, "p": None, "delta": None}, None)
    return decide_values(
        {"D": found.distance, "p": found.p, "delta": found.delta},
        lambda: found.p < ALPHA and found.delta > 0,
        lambda: sentences(describe(study, run), describe(study, reference)),
    )


def contracts(study: Study, run: str, reference: str) -> Outcome:
    """Spectral radius below 1 for every stimulus of one run, and on average below that of another."""
    radii = [r.stability["spectral_radius"].max() for r in study[run] if "spectral_radius" in r.stability]
    greatest = float(max(radii, default=math.nan))
    means = {name: mean_value(study, name, "spectral_radius") for name in (run, reference)}
    return decide_values(
        {f"greatest {run}": greatest, **means},
        lambda: greatest < 1 and means[run] < means[reference],
        lambda: sentences(describe(study, run), describe(study, reference)),
    )
