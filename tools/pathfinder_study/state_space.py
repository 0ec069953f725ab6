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
    drift: ||p_T - p_N|| of each stimulus over the spread of the states up to N in the plane they are projected on (root
        mean square distance from their centroid). The stimuli's states at N alone may lie so close together that
        any movement is large beside their spread.
    region: at_trained against at_far; significant where states have left the region of solutions.
    """

    at_trained: ndarray
    at_far: ndarray
    drift: ndarray
    region: Comparison


def state_space(record: Record) -> StateSpace | None:
    """None where the record has no finite states."""
    parts = [record.state_space.get(name) for name in ("pooled_at_N", "pooled_at_T", "projection")]
    if any(part is None for part in parts):
        return None
    trained, far, path = parts[0], parts[1], parts[2][:, : record.steps].reshape(-1, 2)
    if not all(np.isfinite(part).all() for part in (trained, far, path)):
        return None
    center = trained.mean(axis=0)
    at_trained, at_far = (np.linalg.norm(states - center, axis=1) for states in (trained, far))
    spread = np.sqrt(((path - path.mean(axis=0)) ** 2).sum(axis=1).mean())
    drift = np.linalg.norm(far - trained, axis=1) / max(spread, np.finfo(float).tiny)
    return StateSpace(at_trained, at_far, drift, compare(at_trained, at_far))


def compare_drift(first: Sequence[Record], second: Sequence[Record]) -> Comparison | None:
    """The drifts of all seeds of one run against those of another; None where one has no states."""
    drifts = [[found.drift for record in run if (found := state_space(record))] for run in (first, second)]
    return compare(*(np.concatenate(drift) for drift in drifts)) if all(drifts) else None
