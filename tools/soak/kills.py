"""Runs killed at random moments and resumed, against undisturbed ones: weights, optimizer and scalars, bit for bit."""

import random
import shutil
import time
from pathlib import Path

from .small_runs import RUNS, difference, finish, kill_somewhere, register_small_sets, start


class References:
    """Folders and durations in seconds of undisturbed runs, each made at its first use.

    Args:
        folder: where the folders are made.
        timed: make each run twice, as the first one draws its data set too.
    """

    def __init__(self, folder: Path, timed: bool = True):
        self.folder = folder
        self.timed = timed
        self.durations: dict[str, float] = {}

    def __getitem__(self, name: str) -> tuple[Path, float]:
        place = self.folder / f"reference_{name}"
        if name not in self.durations:
            for _ in range(1 + self.timed):
                shutil.rmtree(place, ignore_errors=True)
                begun = time.monotonic()
                if not finish(start(RUNS[name].arguments(place), self.folder / f"reference_{name}.log")):
                    raise RuntimeError(f"the undisturbed run {name} failed; see {self.folder}/reference_{name}.log")
                self.durations[name] = time.monotonic() - begun
        return place, self.durations[name]


def trial(number: int, seed: int, folder: Path, references: References) -> dict:
    """Kill one run one to six times and resume it.

    Returns: {"trial": number, "run": its name, "kills": how many, "difference": "" or what differs}.
    """
    rng = random.Random(f"kills {seed} {number}")
    name = list(RUNS)[number % len(RUNS)]
    reference, duration = references[name]
    place, log = folder / f"run_{number}", folder / f"run_{number}.log"
    shutil.rmtree(place, ignore_errors=True)
    arguments = RUNS[name].arguments(place, "--resume")
    kills = 0
    for _ in range(rng.randint(1, 6)):
        kills += kill_somewhere(arguments, log, rng, duration)
    found = difference(reference, place) if finish(start(arguments, log)) else "the last resume failed"
    if not found:
        shutil.rmtree(place)
        log.unlink()
    return {"trial": number, "run": name, "kills": kills, "difference": found}


def soak(count: int, seed: int, folder: Path, record) -> dict:
    """Trials until `count` kills; `record` is a Record that already holds those of earlier calls."""
    register_small_sets(folder / "datasets")
    references = References(folder)
    while sum(row["kills"] for row in record.rows) < count:
        record.add(trial(len(record.rows), seed, folder, references))
    wrong = [row for row in record.rows if row["difference"]]
    return {
        "kills": sum(row["kills"] for row in record.rows),
        "runs": len(record.rows),
        "differences": len(wrong),
        "first": wrong[:1],
    }
