"""Folders with a damaged checkpoint, resumed: the run must end as the undisturbed one."""

import os
import pickle
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import torch

from crbp_d2.checkpoint.loading import LAST

from .kills import References
from .small_runs import ITERATIONS, PERIOD, RUNS, difference, finish, register_small_sets, start

# The newest checkpoint that a run leaves which ends after this many iterations.
STOPPED_AT = ITERATIONS - 2 * PERIOD


class RunsCode:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def _truncate(path: Path, rng: random.Random) -> None:
    os.truncate(path, rng.randrange(1, path.stat().st_size))


def _overwrite(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    # Within the records: the padding between them carries nothing.
    for _ in range(rng.randint(20, 60)):
        content[rng.randrange(len(content))] ^= rng.randint(1, 255)
    path.write_bytes(content)


def _zeros(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    begin = rng.randrange(len(content) // 2)
    content[begin:] = bytes(len(content) - begin)
    path.write_bytes(content)


def _empty(path: Path, rng: random.Random) -> None:
    path.write_bytes(b"")


def _garbage(path: Path, rng: random.Random) -> None:
    path.write_bytes(rng.randbytes(rng.randint(1, 10_000)))


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


def _last_garbage(path: Path, rng: random.Random) -> None:
    (path.parent / LAST).write_bytes(rng.randbytes(rng.randint(0, 40)))


def _last_missing(path: Path, rng: random.Random) -> None:
    (path.parent / LAST).write_text("model_9999999.pth")


def _last_pickle(path: Path, rng: random.Random) -> None:
    (path.parent / "model.pkl").write_bytes(pickle.dumps(RunsCode(path.parent / "code_ran")))
    (path.parent / LAST).write_text("model.pkl")


def _last_gone(path: Path, rng: random.Random) -> None:
    (path.parent / LAST).unlink()


DAMAGES: dict[str, Callable[[Path, random.Random], None]] = {
    name.__name__.strip("_"): name
    for name in (
        _truncate, _overwrite, _zeros, _empty, _garbage, _foreign, _without_state, _code, _last_garbage, _last_missing,
        _last_pickle, _last_gone,
    )
}  # fmt: skip


def trial(number: int, seed: int, folder: Path, references: References) -> dict:
    """One folder, damaged and resumed; what came of it.

    Returns: {"trial": number, "run": its name, "damage": its kind, "problem": "" or what went wrong}.
    """
    rng = random.Random(f"checkpoints {seed} {number}")
    name, damage = list(RUNS)[number % len(RUNS)], list(DAMAGES)[number % len(DAMAGES)]
    reference, _ = references[name]
    place, log = folder / f"run_{number}", folder / f"run_{number}.log"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(reference, place)
    # As if the run had been killed after this checkpoint.
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
    if not damage.startswith("last") and newest.name not in log.read_text(errors="replace"):
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
