"""Do the states stay where they were read out in training? (Linsley et al. 2020, state space analysis.)

N: steps trained with; T = 4 N. A state is averaged over space: C numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy import ndarray

from .distributions import Comparison, compare
from .records import Record


@dataclass(frozen=True)
class StateSpace:
    """One run.

    at_trained, at_far: distances of the stimuli's states at N and at T from the centroid of those at N.
    drift: ||p_T - p_N|| of each stimulus over the spread at N (root mean square of `at_trained`).
    region: at_trained against at_far; significant where states have left the region of solutions.
    """

    at_trained: ndarray
    at_far: ndarray
    drift: ndarray
    region: Comparison


def state_space(record: Record) -> StateSpace | None:
    """None where the record has no finite states."""
    trained, far = (record.state_space.get(f"pooled_at_{when}") for when in ("N", "T"))
    if trained is None or far is None or not np.isfinite(trained).all() or not np.isfinite(far).all():
        return None
    center = trained.mean(axis=0)
    at_trained, at_far = (np.linalg.norm(states - center, axis=1) for states in (trained, far))
    spread = np.sqrt((at_trained**2).mean())
    drift = np.linalg.norm(far - trained, axis=1) / max(spread, np.finfo(float).tiny)
    return StateSpace(at_trained, at_far, drift, compare(at_trained, at_far))


def compare_drift(first: Sequence[Record], second: Sequence[Record]) -> Comparison | None:
    """The drifts of all seeds of one run against those of another; None where one has no states."""
    drifts = [[found.drift for record in run if (found := state_space(record))] for run in (first, second)]
    return compare(*(np.concatenate(drift) for drift in drifts)) if all(drifts) else None
