"""One run per output folder."""

import errno
import json
import logging
import os
import socket
from pathlib import Path
from types import TracebackType
from typing import IO

import portalocker
from detectron2.utils import comm

from crbp_d2.checkpoint.loading import LAST, newest_first

FILE = "run.lock"
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


class FolderTaken(RuntimeError):
    """Another run uses the folder; the message names its process and host."""


class RunLock:
    """Keeps other runs out of a folder while a `with` block runs; the main process does it for all.

    The operating system frees a lock when its process ends, however it ends, so a stale lock is one whose file still
    names a process: it is taken over, and `notes` says so.

    Args:
        folder: created if missing.

    Raises (on entering, in every process):
        FolderTaken: another run holds the lock.
        OSError: names a folder or file that cannot be written.
    """

    def __init__(self, folder: str):
        self.path = os.path.join(folder, FILE)
        self.notes: list[str] = []
        self._file: IO[str] | None = None

    def log_notes(self) -> None:
        """Log the notes; the log file is in the folder, so it begins later."""
        for note in self.notes:
            logging.getLogger(__name__).warning(note)

    def __enter__(self) -> "RunLock":
        problem = None
        if comm.is_main_process():
            try:
                self._acquire()
            except (FolderTaken, OSError) as error:
                problem = error
        problem = comm.all_gather(problem)[0]
        if problem is not None:
            raise problem
        return self

    def _acquire(self) -> None:
        try:
            _make_folder(os.path.dirname(self.path))
            self._lock = portalocker.Lock(
                self.path, "a+", timeout=0, flags=portalocker.LockFlags.EXCLUSIVE | portalocker.LockFlags.NON_BLOCKING
            )
            self._file = self._lock.acquire()
        except portalocker.LockException as error:
            if _is_unsupported(error):
                self.notes.append(f"{self.path} cannot be locked, so concurrent runs are not prevented")
                return
            raise FolderTaken(
                f"OUTPUT_DIR {os.path.dirname(self.path)} is used by {_describe(_read(self.path))}; wait for it or "
                "stop it, or choose another OUTPUT_DIR"
            ) from error
        # A worker of a data loader must not keep the lock when its run is killed.
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)
        self._file.seek(0)
        if before := self._file.read():
            self.notes.append(
                f"Taking over the lock {self.path} of {_describe(before)}, which ended without freeing it"
            )
        self._write(json.dumps({"process": os.getpid(), "host": socket.gethostname()}))

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._file is not None:
            self._write("")
            self._lock.release()
            self._file = None

    def _write(self, text: str) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._file.write(text)
        self._file.flush()

    def _forget(self) -> None:
        if self._file is not None:
            os.close(self._file.fileno())
            self._file = None


def _make_folder(folder: str) -> None:
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        text = "is a file, not a folder" if os.path.isfile(folder) else f"cannot be made: {error.strerror or error}"
        raise type(error)(error.errno, f"OUTPUT_DIR {text}", folder) from error


def _is_unsupported(error: portalocker.LockException) -> bool:
    """Whether the file system has no locks."""
    causes = (error, error.__cause__, error.__context__, *error.args)
    return any(getattr(cause, "errno", None) in NO_LOCKS for cause in causes)


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _describe(content: str) -> str:
    try:
        owner = json.loads(content)
        return f"process {owner['process']} on host {owner['host']}"
    except (json.JSONDecodeError, KeyError, TypeError):
        return "another process"


# Moved with the checkpoints.
FILES = (LAST, "metrics.json", "model_best.pth", "model_ema.pth")


def set_aside(folder: str) -> Path | None:
    """Move the checkpoints and metrics of an earlier run into a sub-folder, apart from those of a new run.

    Files of weights that are no checkpoints of a training stay. Returns the sub-folder, None where there is nothing
    to move.
    """
    damaged: dict[str, str] = {}
    checkpoints = [*newest_first(folder, damaged), *damaged]
    if not checkpoints:
        return None
    number = 1
    while (place := Path(folder, f"earlier_run_{number}")).exists():
        number += 1
    place.mkdir()
    for path in (*checkpoints, *(os.path.join(folder, name) for name in FILES)):
        if os.path.exists(path):
            os.replace(path, place / os.path.basename(path))
    logging.getLogger(__name__).warning(
        "%s holds an earlier run; its checkpoints and metrics are now in %s (--resume continues a run)",
        folder, place,
    )  # fmt: skip
    return place
