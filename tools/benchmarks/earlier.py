"""Processor time of training steps and inference compared with an earlier revision."""

import statistics
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tools.revisions import ROOT, Revision

from .tables import Table
from .works import WORKS


@dataclass(frozen=True)
class Change:
    """A piece of work: median seconds of the processor, and the median ratio now / earlier of the rounds."""

    work: str
    earlier: float
    now: float
    ratio: float


def compare_versions(earlier: Path, now: Path = ROOT, works: Iterable[str] = WORKS, rounds: int = 7) -> list[Change]:
    """Both revisions run each piece of work in turn, after an untimed first run.

    Args:
        earlier, now: folders that hold crbp_d2.
    """
    changes = []
    with ExitStack() as stack:
        script = Path(__file__).with_name("works.py")
        versions = [stack.enter_context(Revision(folder, script)) for folder in (earlier, now)]
        for work in works:
            pairs = [tuple(float(version.answer(work)) for version in versions) for _ in range(rounds)]
            a, b = (statistics.median(times) for times in zip(*pairs, strict=True))
            changes.append(Change(work, a, b, statistics.median(b / a for a, b in pairs)))
    return changes


def earlier_table(changes: list[Change]) -> Table:
    """A row a piece of work."""
    rows = [[c.work, f"{c.earlier:.3f}", f"{c.now:.3f}", f"{c.ratio:.2f}"] for c in changes]
    return Table(["work", "earlier, s", "now, s", "now / earlier"], rows)
