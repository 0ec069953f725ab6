"""The records of the Pathfinder study: one JSON file a run, read and checked.

N: steps trained with; T = 4 N: steps evaluated; n: stimuli; C: channels. Values that are not finite, null in the
files, are nan.
"""

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

# key -> type: required keys. `steps` is null in a feedforward run.
REQUIRED = {
    "run": str, "seed": int, "scale": str, "config": str, "options": list, "kernel_size": int, "channels": int,
    "parameters": int, "iterations": int, "batch": int, "seconds": dict, "machine": str,
}  # fmt: skip
# part -> its lists that go along one axis; a part may be missing, and so may a list in it.
PARTS = {
    "curve": ("iteration", "loss", "residual"),
    "probe": ("iteration", "f1", "f1_far", "penalty", "residual"),
    "stability": (),
    "state_space": (),
}


@dataclass(frozen=True)
class Scores:
    """F1 after each of `steps` (increasing; [0] of a model without steps), mean over stimuli."""

    steps: ndarray
    f1: ndarray

    def at(self, t: int) -> float:
        """nan where t was not evaluated."""
        (found,) = np.nonzero(self.steps == t)
        return float(self.f1[found[0]]) if len(found) else math.nan


@dataclass(frozen=True)
class Record:
    """One run with one seed.

    quality: spec -> scores after every step up to 16 N; empty for a pilot.
    commit: commit of the code that measured, with a "+" where files were changed.
    curve, probe: key -> values along training.
    stability: key -> values of the trained model. state_space: key -> values; projection n x T x 2, pooled_at_N and
    pooled_at_T n x C, explained 2 fractions. Parts that the file lacks are empty.
    """

    path: Path
    run: str
    seed: int
    scale: str
    config: str
    options: list
    steps: int | None
    kernel_size: int
    channels: int
    parameters: int
    iterations: int
    batch: int
    seconds: dict[str, float]
    machine: str
    commit: str
    checkpoint: str | None
    quality: dict[str, Scores]
    curve: dict[str, ndarray]
    probe: dict[str, ndarray]
    stability: dict[str, ndarray]
    state_space: dict[str, ndarray]

    @property
    def far(self) -> int | None:
        """T."""
        return None if self.steps is None else 4 * self.steps

    def f1(self, spec: str, multiple: int = 1) -> float:
        """F1 after `multiple` N steps, or that of a model without steps; nan if it was not measured."""
        scores = self.quality.get(spec)
        return math.nan if scores is None else scores.at(0 if self.steps is None else multiple * self.steps)

    def best_f1(self, spec: str) -> float:
        """The maximum F1 over all evaluated steps; nan without any."""
        scores = self.quality.get(spec)
        return math.nan if scores is None or np.isnan(scores.f1).all() else float(np.nanmax(scores.f1))

    def value(self, name: str) -> float:
        """Mean of a value of `stability`; nan if it was not measured."""
        found = self.stability.get(name)
        return math.nan if found is None or not found.size else float(found.mean())

    @property
    def last_residual(self) -> float:
        """Relative change of the state in the last recorded step; nan without any."""
        found = self.stability.get("residual")
        return math.nan if found is None or not found.size else float(found[-1])


class Study:
    """The records of a study by run and increasing seed. An unknown run has no records."""

    def __init__(self, records: Sequence[Record]):
        self.records = sorted(records, key=lambda record: (record.run, record.seed))

    def __getitem__(self, run: str) -> list[Record]:
        return [record for record in self.records if record.run == run]

    @cached_property
    def runs(self) -> list[str]:
        return list(dict.fromkeys(record.run for record in self.records))

    @cached_property
    def specs(self) -> list[str]:
        """Specs from short contours to long ones; the first one is trained on."""
        names = {name for record in self.records for name in record.quality}
        return sorted(names, key=lambda name: (int((re.findall(r"\d+", name) or [0])[0]), name))

    def first(self, run: str) -> Record | None:
        """The record of the lowest seed."""
        records = self[run]
        return records[0] if records else None

    def mean_f1(self, run: str, spec: str, multiple: int = 1) -> float:
        """Mean over seeds of F1 after `multiple` N steps; nan without records."""
        return self.mean(run, lambda record: record.f1(spec, multiple))

    def mean(self, run: str, of: Callable[[Record], float]) -> float:
        """Mean over seeds of a number of each record; nan without records."""
        values = [of(record) for record in self[run]]
        return sum(values) / len(values) if values else math.nan


def load_study(folder: Path) -> Study:
    """Every record in `folder`/*.json.

    Raises:
        ValueError: two files of the same run and seed; see `read_record`.
    """
    records: dict[tuple[str, int], Record] = {}
    for path in sorted(folder.glob("*.json")):
        record = read_record(path)
        key = record.run, record.seed
        if key in records:
            raise ValueError(
                f"{path} and {records[key].path} are duplicates of {record.run}, seed {record.seed}: remove one"
            )
        records[key] = record
    return Study(list(records.values()))


def read_record(path: Path) -> Record:
    """A record from its file.

    Raises:
        ValueError: names the file, the key and what is wrong with it.
    """
    try:
        content = json.loads(path.read_text())
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}; remove it and run it again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a JSON object, not a {type(content).__name__}")
    try:
        return _record(path, content)
    except _WrongError as error:
        raise ValueError(f"{path}: {error}; remove the file and run it again") from error


class _WrongError(Exception):
    """A key and its fault."""


def _record(path: Path, content: dict) -> Record:
    for key, kind in REQUIRED.items():
        value = content.get(key)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise _WrongError(f"{key} must be a {kind.__name__}, not {value!r}")
    steps = content.get("steps")
    if steps is not None and (not isinstance(steps, int) or steps < 1):
        raise _WrongError(f"steps must be a whole number from 1, or null, not {steps!r}")
    parts = {name: _part(name, content.get(name) or {}) for name in PARTS}
    return Record(
        **{key: content[key] for key in REQUIRED if key != "seconds"},
        **parts,
        path=path,
        steps=steps,
        commit=content.get("commit") or "",
        checkpoint=content.get("checkpoint"),
        seconds={key: float(_numbers(f"seconds.{key}", value)) for key, value in content["seconds"].items()},
        quality={
            name: _scores(f"quality.{name}", value) for name, value in _mapping("quality", content.get("quality"))
        },
    )


def _mapping(key: str, value: object) -> list[tuple[str, Any]]:
    if not isinstance(value, dict | None):
        raise _WrongError(f"{key} must be an object, not {value!r}")
    return list((value or {}).items())


def _numbers(key: str, value: object) -> ndarray:
    try:
        return np.array(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise _WrongError(f"{key} must hold numbers in lists of equal length ({error})") from error


def _scores(key: str, value: object) -> Scores:
    content = dict(_mapping(key, value))
    for name in ("steps", "f1"):
        if not isinstance(content.get(name), list):
            raise _WrongError(f"{key} has no list {name!r}")
    steps, f1 = _numbers(f"{key}.steps", content["steps"]), _numbers(f"{key}.f1", content["f1"])
    if f1.shape != steps.shape:
        raise _WrongError(f"{key}.f1 has {f1.size} values, but there are {steps.size} steps")
    if (np.diff(steps) <= 0).any():
        raise _WrongError(f"{key}.steps must increase")
    return Scores(steps.astype(np.int64), f1)


def _part(name: str, value: object) -> dict[str, ndarray]:
    found = {key: _numbers(f"{name}.{key}", numbers) for key, numbers in _mapping(name, value) if numbers is not None}
    lists = [key for key in PARTS[name] if key in found]
    for key in lists[1:]:
        if found[key].shape != found[lists[0]].shape:
            first = lists[0]
            raise _WrongError(f"{name}.{key} has {found[key].size} values, but {name}.{first} {found[first].size}")
    return found
