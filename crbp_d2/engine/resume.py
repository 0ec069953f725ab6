"""Hooks that make a resumed run equal to an undisturbed one."""

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from detectron2.engine import HookBase, hooks
from detectron2.utils import comm
from detectron2.utils.events import EventStorage, EventWriter, JSONWriter

from crbp_d2.utils.files import write_text

from .seeding import STEP, seed_generators

# Iterations that detectron2's writers smooth over.
WINDOW = 20
# Scalars of the clock, which restart with each process.
CLOCK = ("time", "data_time", "rank_data_time", "eta_seconds")


class SeedEveryStep(HookBase):
    """Seeds the global generators by (seed, iteration, rank) before each step; keeps the seed in checkpoints.

    Register it first: hooks after it may draw random numbers.
    """

    def before_step(self) -> None:
        seed_generators(self.trainer.seed, STEP, self.trainer.iter, comm.get_rank())

    def state_dict(self) -> dict:
        return {"seed": self.trainer.seed}

    def load_state_dict(self, state: dict) -> None:
        if self.trainer.cfg.SEED >= 0 and state["seed"] != self.trainer.cfg.SEED:
            logging.getLogger(__name__).warning(
                "SEED is %d, but this run began with %d, which it keeps", self.trainer.cfg.SEED, state["seed"]
            )
        self.trainer.seed = state["seed"]


class ResumedMetrics(HookBase):
    """Continues the scalars of a run: those that writers smooth over are kept in checkpoints.

    Register it before the writers.

    Args:
        writer: writes metrics.json; drops the lines that a killed run wrote after its last checkpoint.
    """

    def __init__(self, writer: "MetricsWriter | None" = None):
        self.writer = writer
        self.recent: dict[str, dict] = {}
        self.evaluated = False
        self._line_is_missing = False

    def state_dict(self) -> dict:
        storage = getattr(self.trainer, "storage", None)
        if storage is None:
            return self.recent
        return {
            name: {"values": history.values()[-WINDOW:], "smooth": storage.smoothing_hints()[name]}
            for name, history in storage.histories().items()
            if name not in CLOCK
        }

    def load_state_dict(self, state: dict) -> None:
        self.recent = state

    def before_train(self) -> None:
        restore_scalars(self.trainer.storage, self.recent)
        if self.writer is None:
            return
        start = self.trainer.start_iter
        self.writer.continue_from(start)
        self._restore_evaluation(start - 1)
        # The run may have been killed between a checkpoint and its line.
        due = start % WINDOW == 0 or start == self.trainer.max_iter
        self._line_is_missing = start > 0 and due and self.writer.last_line.get("iteration", -1) < start - 1

    def _restore_evaluation(self, iteration: int) -> None:
        """Evaluation comes after the checkpoint of its iteration; its results are in the line that was written."""
        storage, line = self.trainer.storage, self.writer.last_line
        known = {name for name, (_, last) in storage.latest().items() if last == iteration}
        names = line.keys() - known - {"iteration", *CLOCK} if line.get("iteration") == iteration else set()
        for name in sorted(names):
            storage.put_scalar(name, line[name], smoothing_hint=False, cur_iter=iteration)
        self.evaluated = bool(names)

    def before_step(self) -> None:
        self._write_missing_line()

    def after_train(self) -> None:
        self._write_missing_line()

    def _write_missing_line(self) -> None:
        if self._line_is_missing:
            self._line_is_missing = False
            self.writer.write()


def restore_scalars(storage: EventStorage, recent: dict[str, dict]) -> None:
    """Put scalars of ResumedMetrics.state_dict into a storage."""
    for name, scalar in recent.items():
        for value, iteration in scalar["values"]:
            storage.put_scalar(name, value, smoothing_hint=scalar["smooth"], cur_iter=iteration)


class MetricsWriter(EventWriter):
    """detectron2's JSONWriter, opened when training starts, so that the file can be repaired before.

    Raises (from `write`):
        OSError: names the file.
    """

    def __init__(self, path: str):
        self.path = path
        self.last_line: dict = {}
        self._writer: JSONWriter | None = None

    def continue_from(self, iteration: int) -> None:
        """Keep the lines of earlier iterations; drop later ones and a truncated line."""
        kept = [line for line in _intact_lines(self.path) if line["iteration"] < iteration]
        if os.path.exists(self.path):
            write_text(self.path, "".join(json.dumps(line, sort_keys=True) + "\n" for line in kept))
        self._writer = JSONWriter(self.path, window_size=WINDOW)
        self.last_line = max(kept, key=lambda line: line["iteration"], default={})
        # Scalars up to here have been written.
        self._writer._last_write = self.last_line.get("iteration", -1)

    def write(self) -> None:
        with _named(self.path):
            self._writer.write()

    def close(self) -> None:
        if self._writer:
            self._writer.close()


class NamedWriter(EventWriter):
    """Another writer, whose errors name its file or folder.

    Raises (from `write` and `close`):
        OSError: names `path`.
    """

    def __init__(self, writer: EventWriter, path: str):
        self.writer = writer
        self.path = path

    def write(self) -> None:
        with _named(self.path):
            self.writer.write()

    def close(self) -> None:
        with _named(self.path):
            self.writer.close()


@contextmanager
def _named(path: str) -> Iterator[None]:
    """Have an OSError name a file."""
    try:
        yield
    except OSError as error:
        raise type(error)(error.errno, error.strerror or str(error), error.filename or path) from error


def _intact_lines(path: str) -> list[dict]:
    if not os.path.exists(path):
        return []
    lines = []
    for line in Path(path).read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            parsed = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(parsed, dict) and isinstance(parsed.get("iteration"), int):
            lines.append(parsed)
    return lines


class ResumedEvaluation(hooks.EvalHook):
    """detectron2's EvalHook, which re-runs the evaluation that an interrupted run missed.

    Args:
        metrics: knows whether the results exist.
        others: see EvalHook.
    """

    def __init__(self, metrics: ResumedMetrics, *others):
        super().__init__(*others)
        self.metrics = metrics

    def before_train(self) -> None:
        start = self.trainer.start_iter
        if not 0 < start < self.trainer.max_iter or not self._period or start % self._period:
            return
        if not comm.all_gather(self.metrics.evaluated)[0]:
            self.trainer.storage.iter = start - 1
            self._do_eval()

    def after_train(self) -> None:
        # detectron2 also calls this when the last iteration failed; evaluating then may hide why.
        if self.trainer.iter >= self.trainer.max_iter:
            self._do_eval()
        del self._func


class RepeatablePreciseBN(hooks.PreciseBN):
    """detectron2's PreciseBN on the same batches each time, so that a resumed run computes the same statistics."""

    def update_stats(self) -> None:
        self._data_iter = None
        super().update_stats()
