"""Resident memory of long trainings: after a start and at the end, in a process each."""

import os
from pathlib import Path

from detectron2.engine import HookBase

from crbp_d2 import Trainer

from .small_runs import SmallRun, finish, register_small_sets, start

# Iterations of a training, and after which of them its memory is read first.
LENGTH, SETTLED, TOLERANCE = 300, 50, 0.03
_WORKERS = ("DATALOADER.NUM_WORKERS", 0, "TEST.PICTURES", 0, "SOLVER.CHECKPOINT_PERIOD", 10_000, "TEST.EVAL_PERIOD", 0)
_PATHFINDER = ("DATASETS.TRAIN", "('pathfinder_PF14_stream',)", "DATASETS.TEST", "('pathfinder_soak_val',)",
               "SOLVER.IMS_PER_BATCH", 2, "TEST.STEPS_TO_EVALUATE", "()")  # fmt: skip
RUNS = {
    "pathfinder": SmallRun("../pathfinder/PF14_hgru_crbp.yaml", (*_PATHFINDER, *_WORKERS)),
    **{
        rule: SmallRun(f"panoptic_R18_{rule}_toy.yaml", ("SOLVER.IMS_PER_BATCH", 2, *_WORKERS))
        for rule in ("crbp", "progressive", "contracting")
    },
}


def resident() -> int:
    """Bytes of this process in memory."""
    return os.sysconf("SC_PAGE_SIZE") * int(Path("/proc/self/statm").read_text().split()[1])


class ResidentMemory(HookBase):
    """Append "iteration bytes" to a file after SETTLED iterations and at the end of the training."""

    def __init__(self, path: Path, settled: int):
        self.path, self.settled = path, settled

    def after_step(self) -> None:
        if self.trainer.iter + 1 in (self.settled, self.trainer.max_iter):
            with self.path.open("a") as file:
                file.write(f"{self.trainer.iter + 1} {resident()}\n")


def measure(name: str, folder: Path, length: int = LENGTH, settled: int = SETTLED) -> dict:
    """One training.

    Returns: {"run": name, "settled": MiB after `settled` iterations, "end": MiB after `length`, "growth": fraction}.
    """
    path, log = folder / f"{name}.txt", folder / f"{name}.log"
    path.unlink(missing_ok=True)

    def watch() -> None:
        own_hooks = Trainer.own_hooks
        Trainer.own_hooks = lambda self: [*own_hooks(self), ResidentMemory(path, settled)]

    arguments = [*RUNS[name].arguments(folder / name), "SOLVER.MAX_ITER", str(length), "SOLVER.STEPS", "()"]
    if not finish(start(arguments, log, watch)):
        raise RuntimeError(f"the training {name} failed; see {log}")
    first, last = (int(line.split()[1]) / 2**20 for line in path.read_text().splitlines())
    return {"run": name, "settled": round(first, 1), "end": round(last, 1), "growth": round(last / first - 1, 4)}


def soak(count: int, seed: int, folder: Path, record) -> dict:
    """Trainings of RUNS that `record` does not hold yet.

    Args:
        count: iterations of each, at least 60 for a meaningful growth; 300 are the committed figures.
    """
    register_small_sets(folder / "datasets")
    known = {row["run"] for row in record.rows}
    for name in RUNS:
        if name not in known:
            record.add(measure(name, folder, count, min(SETTLED, count // 2)))
    return {"runs": record.rows, "growing": sum(row["growth"] > TOLERANCE for row in record.rows)}
