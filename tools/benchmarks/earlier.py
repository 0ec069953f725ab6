"""What training steps and inference cost beside an earlier version of crbp_d2, taken from the repository's history."""

import io
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tools.page import markdown_table

from .works import WORKS

ROOT = Path(__file__).resolve().parents[2]
# run_path, unlike running the file, does not put its neighbours first on the path, where `cuda` hides a package.
SERVE = "import runpy, sys; runpy.run_path(sys.argv[1], run_name='__main__')"


@dataclass(frozen=True)
class Change:
    """A piece of work: seconds of the processor, medians of the rounds; ratio: the median of now / earlier."""

    work: str
    earlier: float
    now: float
    ratio: float


class VersionError(RuntimeError):
    """A version that cannot be had or run."""


@contextmanager
def checked_out(revision: str, repository: Path = ROOT) -> Iterator[Path]:
    """A folder with the package as it was at a revision.

    Raises:
        VersionError: the repository's history has no such revision, or no package there.
    """
    command = ["git", "archive", "--format=tar", revision, "crbp_d2"]
    try:
        archive = subprocess.run(command, cwd=repository, capture_output=True, check=True).stdout
    except FileNotFoundError:
        raise VersionError("an earlier version comes from the history by git, which is not installed") from None
    except subprocess.CalledProcessError as error:
        raise VersionError(
            f"no crbp_d2 of {revision} in the history: {error.stderr.decode().strip()}; name a commit that `git log` "
            "shows, and clone with all of the history"
        ) from None
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            files.extractall(folder, filter="data")
        yield Path(folder)


class Version:
    """A process that works with the package in a folder. As a context, it ends with it."""

    def __init__(self, folder: Path):
        self._folder = folder

    def __enter__(self) -> "Version":
        # With -c, the current folder comes first on the path.
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", SERVE, str(Path(__file__).with_name("works.py"))],
            cwd=self._folder,
            env={**os.environ, "PYTHONPATH": str(self._folder), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *_) -> None:
        self._process.communicate()

    def seconds(self, work: str) -> float:
        """Of the processor, for one of WORKS.

        Raises:
            VersionError: the version cannot do it, or is none.
        """
        assert self._process.stdin and self._process.stdout
        try:
            self._process.stdin.write(f"{work}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass
        answer = self._process.stdout.readline()
        if not answer:
            raise VersionError(f"the version in {self._folder} cannot do {work!r}; its own words stand above")
        return float(answer)


def compare_versions(earlier: Path, now: Path = ROOT, works: Iterable[str] = WORKS, rounds: int = 7) -> list[Change]:
    """Both do each piece of work in turn, after a first time that does not count.

    Args:
        earlier, now: folders that hold crbp_d2.
    """
    changes = []
    with ExitStack() as stack:
        versions = [stack.enter_context(Version(folder)) for folder in (earlier, now)]
        for work in works:
            pairs = [tuple(version.seconds(work) for version in versions) for _ in range(rounds)]
            a, b = (statistics.median(times) for times in zip(*pairs, strict=True))
            changes.append(Change(work, a, b, statistics.median(b / a for a, b in pairs)))
    return changes


def earlier_section(revision: str, changes: list[Change], rounds: int) -> str:
    slowest = max(changes, key=lambda change: change.ratio)
    headers = ["work", "earlier, s", "now, s", "now / earlier"]
    rows = [[c.work, f"{c.earlier:.3f}", f"{c.now:.3f}", f"{c.ratio:.2f}"] for c in changes]
    return (
        f"Training steps and inference with the code of commit {revision} and with this, a process each, which take "
        "turns: seconds of the processor in one thread, medians; the ratio is the median of those of "
        f"{rounds} rounds. "
        f"The largest is {slowest.ratio:.2f}. C-RBP takes 20 evaluations and a series of 15 products, accelerated 7 by "
        "Anderson and 3; deq a tolerance of 0.01; BPTT 20 steps where nothing else is said. What the works are stands "
        "in tools/benchmarks/works.py.\n\n" + markdown_table(headers, rows)
    )
