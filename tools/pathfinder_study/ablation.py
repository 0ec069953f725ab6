"""The ablation: fixed-point rules in other settings than the paper's, each row the mean over its seeds.

N: steps trained with.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .dynamics import LOST, describe, describe_seeds, describe_training, mean, mean_f1, seconds
from .figure_style import label_of
from .measures import Outcome, decide, sentences
from .records import Record, Study

# Runs whose names begin with PREFIX are held against REFERENCES, which stand above them.
REFERENCES = ("hgru_bptt", "hgru_bptt_lr", "hgru_crbp")
PREFIX = "recipe_"
# Likewise with three times the training.
LONG_REFERENCES, LONG = ("long_bptt_lr",), ("long_contracting",)
# F1 below BPTT's, and training time over BPTT's (1% for the clock), at most.
CLOSE, TIME = 0.01, 1.01


@dataclass(frozen=True)
class Row:
    """The records of one run."""

    records: Sequence[Record]

    @property
    def first(self) -> Record:
        return self.records[0]

    @property
    def label(self) -> str:
        return label_of(self.first)

    def f1(self, spec: str, multiple: int = 1) -> float:
        """After `multiple` N steps; nan where it was not measured."""
        return mean([record.f1(spec, multiple) for record in self.records])

    def long_f1(self, spec: str, multiple: int) -> float:
        """Likewise, of the long runs."""
        return mean([record.long_f1(spec, multiple) for record in self.records])

    def lost(self, spec: str, multiple: int) -> float:
        """F1 at N minus that at `multiple` N, of the long runs."""
        return self.long_f1(spec, 1) - self.long_f1(spec, multiple)

    def seconds(self, name: str) -> float:
        return mean([record.seconds.get(name, math.nan) for record in self.records])

    def last(self, name: str) -> float:
        """The last value of one of the probes."""
        return mean([record.last("probe", name) for record in self.records])


def settings(study: Study) -> list[str]:
    """The runs of the ablation."""
    return [run for run in study.runs if run.startswith(PREFIX)]


def ablation_rows(study: Study) -> list[Row]:
    """References first; empty where no setting was run."""
    runs = settings(study)
    return _rows(study, (*REFERENCES, *runs)) if runs else []


def long_rows(study: Study) -> list[Row]:
    """The runs with three times the training, references first."""
    return _rows(study, (*LONG_REFERENCES, *LONG))


def _rows(study: Study, runs: Sequence[str]) -> list[Row]:
    return [Row(study[run]) for run in runs if study[run]]


def reaches(study: Study, runs: Sequence[str], references: Sequence[str]) -> Outcome:
    """One of several fixed-point runs: as good as the best of the references, as fast as it, and stable to 8 N.

    The run is chosen on validation stimuli: of those that are fast enough, or of all if none is, the one whose lesser
    F1 of those at N and at 4 N is greatest.
    """
    trained = study.specs[0] if study.specs else ""
    reference = max(references, key=lambda run: np.nan_to_num(mean_f1(study, run)))
    best, time = mean_f1(study, reference), seconds(study, reference)
    rows = _rows(study, runs)
    if not rows or any(math.isnan(mean_f1(study, run) + seconds(study, run)) for run in references):
        return Outcome({"row": None, "F1 at N": None, f"F1 of {reference}": None}, None)
    fast = [row for row in rows if row.seconds("training") <= time * TIME]
    row = max(fast or rows, key=lambda row: np.nan_to_num(min(row.last("f1"), row.last("f1_far"))))
    f1, used, lost = row.f1(trained), row.seconds("training"), row.lost(trained, 8)
    values = {
        "F1 at N": f1,
        f"F1 of {reference}": best,
        "training s": used,
        f"training s of {reference}": time,
        "lost to 8 N": lost,
    }
    misses = {
        f"F1 {best - f1:.3f} lower": f1 < best - CLOSE,
        f"{used / time:.2f} times the time": not fast,
        f"{lost:.3f} lost to 8 N": lost > LOST,
    }

    def why() -> str:
        later = row.f1(trained, 4) - mean_f1(study, reference, multiple=4)
        return sentences(
            f"Of {len(rows)} rows the one chosen, {row.label}, misses by "
            f"{', '.join(text for text, missed in misses.items() if missed)}.",
            f"At 4 N its F1 differs from {reference}'s by {later:+.3f}.",
            describe_seeds(study, row.first.run, reference),
            describe(study, row.first.run),
            describe_training(study, row.first.run, reference),
        )

    found = decide(values, lambda: not any(misses.values()), why)
    return Outcome({"row": row.label, **found.values}, found.holds, found.why)
