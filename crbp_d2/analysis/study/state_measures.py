"""What claims about states and stability are measured by; see measures.

N: steps trained with.
"""

import math
from collections.abc import Callable

import numpy as np

from .dynamics import describe, mean_value
from .measures import Outcome, decide, sentences
from .records import Record, Study
from .state_space import StateSpace, compare_drift, state_space

# Level of the Kolmogorov-Smirnov tests.
ALPHA = 0.01
STABLE = ("hgru_crbp", "hgru_cbptt")
UNSTABLE = ("hgru_bptt", "hgru_tbptt", "hgru_bptt_every_step", "hgru_rbp")


def separates(study: Study) -> Outcome:
    """The penalty of every stable rule below that of every unstable one."""
    values = {run: mean_value(study, run, "penalty") for run in (*STABLE, *UNSTABLE)}

    def why() -> str:
        most = max(STABLE, key=values.get)
        small = [f"{run} ({values[run]:.2g})" for run in UNSTABLE if values[run] <= values[most]]
        far = ", ".join(f"{run} {mean_value(study, run, 'penalty_far'):.2g}" for run in values)
        radius = ", ".join(f"{run} {mean_value(study, run, 'spectral_radius'):.2f}" for run in values)
        return (
            f"{' and '.join(small)} have no more penalty than {most} ({values[most]:.2g}). The penalty looks at column "
            f"sums of the Jacobian, which have signs, not at its eigenvalues. Penalty at 4 N: {far}. Spectral radius "
            f"at 4 N: {radius}."
        )

    return decide(values, lambda: max(values[r] for r in STABLE) < min(values[r] for r in UNSTABLE), why)


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

    found = decide(values, lambda: all(condition(s.region.p) for _, s in spaces), why)
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
    return decide(
        {"D": found.distance, "p": found.p, "delta": found.delta},
        lambda: found.p < ALPHA and found.delta > 0,
        lambda: sentences(describe(study, run), describe(study, reference)),
    )


def contracts(study: Study, run: str, reference: str) -> Outcome:
    """Spectral radius below 1 for every stimulus of one run, and on average below that of another."""
    radii = [r.stability["spectral_radius"].max() for r in study[run] if "spectral_radius" in r.stability]
    greatest = float(max(radii, default=math.nan))
    means = {name: mean_value(study, name, "spectral_radius") for name in (run, reference)}
    return decide(
        {f"greatest {run}": greatest, **means},
        lambda: greatest < 1 and means[run] < means[reference],
        lambda: sentences(describe(study, run), describe(study, reference)),
    )
