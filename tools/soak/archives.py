"""Damaged archives of stimuli, edited manifests and panoptic JSONs: each is named in one line, or read as it was."""

import logging
import random
import shutil
import tracemalloc
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from detectron2.data import DatasetCatalog

from crbp_d2.data import (
    PanopticDatasetMapper,
    PathfinderDatasetMapper,
    check_panoptic_dataset,
    register_panoptic,
    register_pathfinder,
)
from crbp_d2.data.panoptic.toy import write_toy_panoptic
from crbp_d2.data.pathfinder.dataset import split_of
from crbp_d2.data.pathfinder.files import MANIFEST, write_split
from tools.data_sets import free

from .damage import ARCHIVES, BYTES, edit_json
from .small_runs import SPEC

STIMULI, SCENES = 4, 2
# Archives for each manifest and panoptic JSON.
PER_EDIT = 24
# Bytes of Python's own memory that reading may take.
MOST_MEMORY = 2**23
NAME = "soak_archives"


class Sets:
    """Intact data sets, and their samples."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.stimuli, self.scenes = folder / "stimuli", folder / "scenes"
        for intact in (self.stimuli, self.scenes):
            shutil.rmtree(intact, ignore_errors=True)
        write_split(self.stimuli / NAME / "val", split_of(SPEC, "val", 0, STIMULI))
        write_toy_panoptic(self.scenes, "train", SCENES, 64, 0)
        self.truth = {"stimuli": dict(stimuli_in(self.stimuli))}


def stimuli_in(root: Path) -> Iterable[tuple[object, dict]]:
    """Image id -> sample, as training reads it."""
    register_pathfinder(SPEC, NAME, root=str(root), on_first_use=False)
    name = f"pathfinder_{NAME}_val"
    try:
        for record in DatasetCatalog.get(name):
            yield record["image_id"], PathfinderDatasetMapper()(record)
    finally:
        free(*(f"pathfinder_{NAME}_{split}" for split in ("train", "val", "stream")))


def scenes_in(root: Path, panoptic_json: Path) -> Iterable[tuple[object, dict]]:
    """Image id -> sample of a panoptic set with another JSON."""
    mapper = PanopticDatasetMapper(is_train=True, augmentations=[], image_format="RGB")
    try:
        register_panoptic(NAME, str(panoptic_json), str(root / "panoptic"), str(root / "images"))
        for record in DatasetCatalog.get(NAME):
            yield record["image_id"], mapper(record)
    finally:
        free(NAME)


def outcome(read: Callable[[], Iterable[tuple[object, dict]]], truth: dict | None, place: Path) -> tuple[str, str]:
    """Read a damaged data set.

    Args:
        truth: sample by image id; None: anything may be read.
        place: a path that a message must contain.

    Returns:
        "read" or the message of the rejection, and the problem with it; "" for none.
    """
    tracemalloc.start()
    try:
        logging.disable(logging.WARNING)
        samples = dict(read())
        peak = tracemalloc.get_traced_memory()[1]
    except (ValueError, OSError) as error:
        peak = tracemalloc.get_traced_memory()[1]
        message = str(error)
        if "\n" in message or str(place) not in message:
            return message, f"{type(error).__name__} is not one line with the file: {message!r}"
        return message, _memory(peak)
    except Exception as error:
        return "", f"raw {type(error).__name__}: {error}"
    finally:
        logging.disable(logging.NOTSET)
        tracemalloc.stop()
    if truth is not None and not (
        samples.keys() == truth.keys() and all(map(_equal, samples.values(), truth.values()))
    ):
        return "read", "the samples read differ from those written"
    return "read", _memory(peak)


def _memory(peak: int) -> str:
    return f"{peak:,} bytes of memory" if peak > MOST_MEMORY else ""


def _equal(sample: dict, truth: dict) -> bool:
    return all(np.array_equal(sample[key], truth[key]) for key in ("image", "sem_seg"))


def archive_trial(place: Path, rng: random.Random, sets: Sets) -> tuple[str, str]:
    """A damaged archive; the damage and the problem, "" for none."""
    damages = BYTES | ARCHIVES
    name = rng.choice(sorted(damages))
    folder = Path(shutil.copytree(sets.stimuli, place)) / NAME / "val"
    damages[name](folder / "00000.zip", rng)
    return name, outcome(lambda: stimuli_in(place), sets.truth["stimuli"], folder)[1]


def manifest_trial(place: Path, rng: random.Random, sets: Sets) -> tuple[str, str]:
    """An edited manifest: what is read, and what the generator makes of the folder."""
    folder = Path(shutil.copytree(sets.stimuli, place)) / NAME / "val"
    name = _edit(folder / MANIFEST, rng)
    problem = outcome(lambda: stimuli_in(place), sets.truth["stimuli"], folder)[1]
    if problem:
        return name, problem

    def drawn_again() -> Iterable[tuple[object, dict]]:
        write_split(folder, split_of(SPEC, "val", 0, STIMULI))
        return stimuli_in(place)

    return name, outcome(drawn_again, sets.truth["stimuli"], folder)[1]


def scene_trial(place: Path, rng: random.Random, sets: Sets) -> tuple[str, str]:
    """An edited panoptic JSON: what is harmful is rejected, and the data doctor finds it."""
    path = place / "panoptic.json"
    place.mkdir(parents=True)
    shutil.copyfile(sets.scenes / "panoptic.json", path)
    name = _edit(path, rng)
    try:
        faults = check_panoptic_dataset(str(path), str(sets.scenes / "panoptic"), str(sets.scenes / "images"))
    except Exception as error:
        return name, f"the data doctor: raw {type(error).__name__}: {error}"
    found, problem = outcome(lambda: scenes_in(sets.scenes, path), None, sets.folder)
    if problem:
        return name, problem
    if found == "read" and (harmful := [fault for fault in faults if not fault.harmless]):
        return name, f"harmful, but read: {harmful[0]}"
    if found != "read" and not any(not fault.harmless for fault in faults):
        return name, f"the data doctor does not find what is rejected: {found}"
    return name, ""


def _edit(path: Path, rng: random.Random) -> str:
    if rng.random() < 0.8:
        edit_json(path, rng)
        return "edited"
    name = rng.choice([name for name in sorted(BYTES) if name != "gone"])
    BYTES[name](path, rng)
    return name


TRIALS = {"archive": archive_trial, "manifest": manifest_trial, "panoptic JSON": scene_trial}


def trial(number: int, seed: int, folder: Path, sets: Sets) -> dict:
    """One damage. Returns {"trial": number, "subject": one of TRIALS, "damage": its kind, "problem": "" or a text}."""
    rng = random.Random(f"archives {seed} {number}")
    subject = {0: "manifest", 1: "panoptic JSON"}.get(number % (PER_EDIT + 2), "archive")
    place = folder / f"damaged_{number}"
    shutil.rmtree(place, ignore_errors=True)
    damage, problem = TRIALS[subject](place, rng, sets)
    if not problem:
        shutil.rmtree(place)
    return {"trial": number, "subject": subject, "damage": damage, "problem": problem}


def soak(count: int, seed: int, folder: Path, record) -> dict:
    """Trials until `count` damaged archives; `record` is a Record that already holds those of earlier calls."""
    sets = Sets(folder)
    numbers = dict.fromkeys(TRIALS, 0)
    for row in record.rows:
        numbers[row["subject"]] += 1
    while numbers["archive"] < count:
        record.add(row := trial(len(record.rows), seed, folder, sets))
        numbers[row["subject"]] += 1
    wrong = [row for row in record.rows if row["problem"]]
    return {**numbers, "raw errors": len(wrong), "first": wrong[:1]}
