"""Short trainings, each in a process that may be killed, and the comparison of their results."""

import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from detectron2.data import DatasetCatalog

from crbp_d2.data import PathfinderSpec, register_pathfinder, register_toy_panoptic
from crbp_d2.engine.resume import CLOCK
from crbp_d2.engine.run import main

SPEC = PathfinderSpec(3, window=24, image_size=24, dash_length=2, dash_thickness=1, margin=1, seed_distance=6, border=2,
                      distractor_dashes=2, dot_radius=2)  # fmt: skip
CONFIGS = Path(__file__).resolve().parents[2] / "configs/quick"
ITERATIONS, PERIOD = 12, 2
SETS = (*(f"pathfinder_soak_{split}" for split in ("train", "val", "stream")), "toy_panoptic_train", "toy_panoptic_val")
FINAL = ("model_final.pth", "metrics.json")

PATHFINDER = [
    "DATASETS.TRAIN", "('pathfinder_soak_train',)", "DATASETS.TEST", "('pathfinder_soak_val',)",
    "INPUT.RANDOM_FLIP", "both", "SOLVER.WARMUP_ITERS", 3, "TEST.PICTURES", 0,
]  # fmt: skip
PANOPTIC = [
    "SOLVER.IMS_PER_BATCH", 2, "MODEL.RPN.POST_NMS_TOPK_TRAIN", 50, "MODEL.RPN.POST_NMS_TOPK_TEST", 5,
    "MODEL.RECURRENCE.STEPS", 3, "MODEL.RECURRENCE.NEUMANN.TERMS", 3, "SOLVER.WARMUP_ITERS", 3, "TEST.PICTURES", 0,
]  # fmt: skip
CONTRACTION = ["MODEL.RECURRENCE.PENALTY.NAME", "Contraction", "MODEL.RECURRENCE.PENALTY.BOUND", 0.4]


@dataclass(frozen=True)
class SmallRun:
    """A training of seconds.

    config: file in configs/quick.
    options: keys and values that override it.
    """

    config: str
    options: tuple

    def arguments(self, folder: Path, *more) -> list[str]:
        common = ["OUTPUT_DIR", folder, "SEED", 7, "SOLVER.MAX_ITER", ITERATIONS, "SOLVER.CHECKPOINT_PERIOD", PERIOD]
        values = ["--num-gpus", 0, *more, "--config-file", CONFIGS / self.config, *common, *self.options]
        return [str(value) for value in values]


def _pathfinder(workers: int, rule: str, *options) -> SmallRun:
    shared = ("DATALOADER.NUM_WORKERS", workers, "MODEL.RECURRENCE.RULE", rule)
    return SmallRun("pathfinder_hgru_crbp_instant_test.yaml", (*PATHFINDER, *shared, *options))


RUNS = {
    "stream": _pathfinder(0, "crbp", "DATASETS.TRAIN", "('pathfinder_soak_stream',)"),
    "contraction": _pathfinder(2, "crbp", *CONTRACTION),
    "every_step": _pathfinder(1, "bptt_every_step"),
    "deq": _pathfinder(0, "deq"),
    "panoptic": SmallRun("panoptic_R18_crbp_toy.yaml", (*PANOPTIC, "DATALOADER.NUM_WORKERS", 1)),
}


def register_small_sets(root: Path) -> None:
    """Register the data sets of the runs; they are drawn into `root` at their first use.

    Sets one thread: a fork of a process with several would wait for the missing ones.
    """
    torch.set_num_threads(1)
    if "pathfinder_soak_train" not in DatasetCatalog.list():
        register_pathfinder(SPEC, "soak", root=str(root), num_train=11, num_val=2)
    if "toy_panoptic_train" not in DatasetCatalog.list():
        register_toy_panoptic(str(root), num_train=5, num_val=1, size=64)


def start(arguments: list[str], log: Path, prepare: Callable[[], None] = lambda: None) -> int:
    """Run `crbp-train` with these arguments in a fork of this process, and return its id.

    Args:
        log: file for its output.
        prepare: called in the fork first.
    """
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        # A session of its own: its data workers are killed with it.
        os.setsid()
        with open(log, "ab", buffering=0) as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        prepare()
        main(arguments)
        status = 0
    except SystemExit as stopped:
        status = stopped.code if isinstance(stopped.code, int) else 1
        os.write(2, f"{stopped.code}\n".encode())
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        sys.stdout.flush()
        os._exit(status)


def finish(process: int) -> bool:
    """Wait for a run, and return whether it succeeded."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0


def kill_after(process: int, seconds: float) -> bool:
    """Kill a run after some time, and return whether it was still running."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if os.waitpid(process, os.WNOHANG)[0]:
            return False
        time.sleep(0.002)
    os.killpg(process, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL


def killed_at_disk_call(number: int) -> None:
    """Kill this process at its n-th fsync or rename from now on, while it writes a file."""
    calls = iter(range(1, number + 1))

    def counted(call: Callable) -> Callable:
        def wrapper(*args, **kwargs):
            if next(calls, number) == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)

        return wrapper

    os.fsync, os.replace = counted(os.fsync), counted(os.replace)


def kill_somewhere(arguments: list[str], log: Path, rng: random.Random, duration: float) -> bool:
    """Start a run and kill it at a random time or while it writes, and return whether it was still running."""
    if rng.random() < 0.4:
        number = rng.randint(1, 30)
        process = start(arguments, log, lambda: killed_at_disk_call(number))
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL
    return kill_after(start(arguments, log), rng.uniform(0, duration))


def difference(one: Path, other: Path) -> str:
    """The first difference between two finished runs' weights, optimizer and scalars; "" for none."""
    if missing := [str(f / name) for f in (one, other) for name in FINAL if not (f / name).exists()]:
        return f"{missing[0]} is missing"
    contents = [torch.load(folder / "model_final.pth", weights_only=True) for folder in (one, other)]
    for part in ("model", "trainer"):
        if place := _differs(contents[0][part], contents[1][part], part):
            return place
    texts = [(folder / "metrics.json").read_text() for folder in (one, other)]
    lines = [[json.loads(line) for line in text.splitlines()] for text in texts]
    untimed = [[{k: v for k, v in line.items() if k not in CLOCK} for line in of_run] for of_run in lines]
    return "" if untimed[0] == untimed[1] else "metrics.json"


def _differs(a, b, place: str) -> str:
    if isinstance(a, dict) and isinstance(b, dict):
        keys = [key for key in {**a, **b} if key not in CLOCK]
        parts = [(a.get(key), b.get(key), f"{place}.{key}") for key in keys]
    elif isinstance(a, list | tuple) and len(a) == len(b):
        parts = [(x, y, f"{place}.{k}") for k, (x, y) in enumerate(zip(a, b, strict=True))]
    else:
        equal = torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b or (a != a and b != b)
        return "" if equal else place
    return next(filter(None, (_differs(*part) for part in parts)), "")
