"""Revisions of the repository: their files, and processes that run a script with a revision's package."""

import io
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# With run_path, the script's folder is not first on the path, where its neighbors would hide packages.
SERVE = "import runpy, sys; runpy.run_path(sys.argv[1], run_name='__main__')"


class RevisionError(RuntimeError):
    """A revision that is missing from the history, or whose package does not run."""


@contextmanager
def checked_out(revision: str, *paths: str, repository: Path = ROOT) -> Iterator[Path]:
    """A folder with paths of the repository as of a revision.

    Raises:
        RevisionError: the history lacks the revision, or the revision the paths.
    """
    try:
        command = ["git", "archive", "--format=tar", revision, *paths]
        archive = subprocess.run(command, cwd=repository, capture_output=True, check=True).stdout
    except FileNotFoundError:
        raise RevisionError("git is not installed; it is needed for earlier revisions") from None
    except subprocess.CalledProcessError as error:
        raise RevisionError(
            f"revision {revision!r}: {error.stderr.decode().strip()}; give a commit that `git log` shows, in a clone "
            "with the full history"
        ) from None
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            files.extractall(folder, filter="data")
        yield Path(folder)


class Revision:
    """A process that answers lines, running a script with the package in `folder`; it ends with the context."""

    def __init__(self, folder: Path, script: Path, *arguments: str):
        self._folder = folder
        self._command = [sys.executable, "-W", "ignore", "-c", SERVE, str(script), *arguments]

    def __enter__(self) -> "Revision":
        environment = {**os.environ, "PYTHONPATH": f"{self._folder}:{ROOT}", "OMP_NUM_THREADS": "1"}
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            self._command, cwd=self._folder, env=environment, stdin=pipe, stdout=pipe, text=True
        )
        return self

    def __exit__(self, *_) -> None:
        self._process.communicate()

    def answer(self, line: str) -> str:
        """Send a line and wait for its answer.

        Raises:
            RevisionError: the process has ended.
        """
        assert self._process.stdin and self._process.stdout
        try:
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass
        answer = self._process.stdout.readline()
        if not answer:
            raise RevisionError(f"the package in {self._folder} cannot run {line!r}; see its error above")
        return answer.strip()
