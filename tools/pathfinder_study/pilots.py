"""Learning rates, chosen by short trainings on the training data alone."""

import math

import numpy as np

from .records import Study
from .runs import RATES

# Of a pilot's iterations, the last ones whose loss counts.
LAST = 1 / 6
# Losses over the lowest one that count as equal to it; of equal ones the greater rate is taken, which longer trainings
# gain from more.
EQUAL = 1.01


def pilot_loss(study: Study, config: str, rate: float) -> float:
    """Mean training loss over the LAST of a pilot's iterations; nan where it has not run."""
    record = study.first(f"pilot_{config}_{rate}")
    if record is None or not record.curve:
        return math.nan
    last = record.curve["iteration"] > (1 - LAST) * record.iterations
    return float(np.mean(record.curve["loss"][last]))


def better_rates(study: Study) -> dict[str, float]:
    """The better of RATES of every config whose pilots have all run."""
    runs = [record.run for record in study.records if record.run.startswith("pilot_")]
    better: dict[str, float] = {}
    for config in {run.removeprefix("pilot_").rpartition("_")[0] for run in runs}:
        losses = {rate: pilot_loss(study, config, rate) for rate in RATES}
        if all(map(math.isfinite, losses.values())):
            better[config] = max(rate for rate, loss in losses.items() if loss <= EQUAL * min(losses.values()))
    return better
