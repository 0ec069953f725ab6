"""One run per output folder."""

import fcntl
import logging
import os
import socket
from pathlib import Path
from types import TracebackType
from typing import IO

from detectron2.utils import comm

from crbp_d2.checkpoint.loading import LAST, newest_first

FILE = "run.lock"


class FolderTaken(RuntimeError):
    """Another run uses the folder; the message names its process and host."""


class RunLock:
    """Keeps other runs out of a folder while a `with` block runs; the main process locks for all.

    The operating system frees a lock when its process ends, however it ends. A file that still names a process is of a
    killed run: it is taken over, and `notes` says so.

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
                self._acquire(os.path.dirname(self.path))
            except (FolderTaken, OSError) as error:
                problem = error
        if problem := comm.all_gather(problem)[0]:
            raise problem
        return self

    def _acquire(self, folder: str) -> None:
        try:
            os.makedirs(folder, exist_ok=True)
        except OSError as error:
            raise type(error)(error.errno, f"OUTPUT_DIR cannot be made: {error.strerror}", folder) from error
        file = open(self.path, "a+", encoding="utf-8", errors="replace")  # noqa: SIM115  (closed on leaving)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            with file:
                owner = _content(file) or "another process"
            if isinstance(error, BlockingIOError):
                raise FolderTaken(
                    f"OUTPUT_DIR {folder} is used by {owner}; wait for it or stop it, or choose another OUTPUT_DIR"
                ) from error
            self.notes.append(f"{self.path} cannot be locked ({error.strerror}): concurrent runs are not prevented")
            return
        if before := _content(file):
            self.notes.append(f"Taking over the lock {self.path} of {before}, which ended without freeing it")
        self._file = file
        # A worker of a data loader must not keep the lock when its run is killed.
        os.register_at_fork(after_in_child=self._forget)
        self._write(f"process {os.getpid()} on host {socket.gethostname()}")

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._file is not None:
            self._write("")
            fcntl.flock(self._file, fcntl.LOCK_UN)
            self._forget()

    def _write(self, text: str) -> None:
        self._file.truncate(0)
        self._file.write(text)
        self._file.flush()

    def _forget(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _content(file: IO[str]) -> str:
    file.seek(0)
    return file.read()


# Moved with the checkpoints.
FILES = (LAST, "metrics.json", "model_best.pth", "model_ema.pth")


def set_aside(folder: str) -> Path | None:
    """Move the checkpoints and metrics of an earlier run into a sub-folder, apart from those of a new run.

    Files that hold weights only stay. Returns the sub-folder, or None without checkpoints.
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
