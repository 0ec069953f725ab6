"""Folders with a damaged checkpoint, resumed: the run must end as the undisturbed one."""

import os
import pickle
import random
import shutil
from pathlib import Path

import torch

from crbp_d2.checkpoint.loading import LAST

from .damage import BYTES, Damage, of_bytes
from .kills import References
from .small_runs import ITERATIONS, PERIOD, RUNS, difference, finish, register_small_sets, start

# Checkpoints from here on are removed, as if the run had been killed before.
STOPPED_AT = ITERATIONS - 2 * PERIOD


class RunsCode:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def _overwrite(content: bytearray, rng: random.Random) -> None:
    # Often enough to reach the records: the padding between them carries nothing.
    for _ in range(rng.randint(20, 60)):
        content[rng.randrange(len(content))] ^= rng.randint(1, 255)


def _foreign(path: Path, rng: random.Random) -> None:
    content = torch.load(path, weights_only=True)
    content["model"] = {f"other.{name}": value for name, value in content["model"].items()}
    torch.save(content, path)


def _without_state(path: Path, rng: random.Random) -> None:
    content = torch.load(path, weights_only=True)
    del content[rng.choice(("trainer", "model"))]
    torch.save(content, path)


def _code(path: Path, rng: random.Random) -> None:
    torch.save(RunsCode(path.parent / "code_ran"), path)


def _last(content: bytes) -> Damage:
    return lambda path, rng: (path.parent / LAST).write_bytes(content)


def _last_pickle(path: Path, rng: random.Random) -> None:
    (path.parent / "model.pkl").write_bytes(pickle.dumps(RunsCode(path.parent / "code_ran")))
    (path.parent / LAST).write_text("model.pkl")


DAMAGES: dict[str, Damage] = {
    "cut": BYTES["cut"],
    "garbage": BYTES["garbage"],
    "overwritten": of_bytes(_overwrite),
    "foreign": _foreign,
    "without state": _without_state,
    "code": _code,
    "last is garbage": _last(b"\xff\0model"),
    "last is missing": _last(b"model_9999999.pth"),
    "last is a pickle": _last_pickle,
    "no last": lambda path, rng: (path.parent / LAST).unlink(),
}


def trial(number: int, seed: int, folder: Path, references: References) -> dict:
    """Damage and resume one folder.

    Returns: {"trial": number, "run": its name, "damage": its kind, "problem": "" for none}.
    """
    rng = random.Random(f"checkpoints {seed} {number}")
    name, damage = list(RUNS)[number % len(RUNS)], list(DAMAGES)[number % len(DAMAGES)]
    reference, _ = references[name]
    place, log = folder / f"run_{number}", folder / f"run_{number}.log"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(reference, place)
    for path in place.glob("model_*.pth"):
        if path.stem == "model_final" or int(path.stem.removeprefix("model_")) >= STOPPED_AT:
            path.unlink()
    newest = max(place.glob("model_*.pth"))
    (place / LAST).write_text(newest.name)
    DAMAGES[damage](newest, rng)
    problem = "the resume failed"
    if finish(start(RUNS[name].arguments(place, "--resume"), log)):
        problem = difference(reference, place)
    if (place / "code_ran").exists():
        problem = "code of the file was run"
    if "last" not in damage and newest.name not in log.read_text(errors="replace"):
        problem = problem or "the damaged file was not named"
    if not problem:
        shutil.rmtree(place)
        log.unlink()
    return {"trial": number, "run": name, "damage": damage, "problem": problem}


def soak(count: int, seed: int, folder: Path, record) -> dict:
    """`count` trials; `record` is a Record that already holds those of earlier calls."""
    register_small_sets(folder / "datasets")
    references = References(folder, timed=False)
    while len(record.rows) < count:
        record.add(trial(len(record.rows), seed, folder, references))
    wrong = [row for row in record.rows if row["problem"]]
    return {"damaged checkpoints": len(record.rows), "lost runs": len(wrong), "first": wrong[:1]}
