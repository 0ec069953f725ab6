"""The speed of drawing and writing Pathfinder stimuli."""

import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from crbp_d2.data.pathfinder.files import Split, write_split
from crbp_d2.data.pathfinder.spec import SPECS

from .tables import Table

# Seconds a stimulus and core that the original generator needs for PF14 (reported of it, not measured here).
ORIGINAL_SECONDS = 0.4
PAPER_COUNT = 200_000


def measure_stimuli(counts: dict[str, int], workers: int) -> Iterable[tuple[str, int, float, float]]:
    """Write stimuli into a temporary folder.

    Args:
        counts: name of a spec -> stimuli.
        workers: processes, one a core.

    Yields:
        name, count, seconds in all, bytes a stimulus.
    """
    for name, count in counts.items():
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            write_split(Path(folder), Split(SPECS[name], (0, 1), count), workers)
            seconds = time.perf_counter() - start
            size = sum(path.stat().st_size for path in Path(folder).iterdir())
        yield name, count, seconds, size / count


def stimuli_table(rows: Iterable[tuple[str, int, float, float]], workers: int) -> Table:
    """Results of `measure_stimuli`; hours and GB are extrapolated."""
    table = []
    for name, count, seconds, size in rows:
        paper = not name.endswith("s")
        each = seconds * workers / count
        table.append(
            [
                name,
                count,
                f"{1000 * each:.1f}",
                f"{ORIGINAL_SECONDS / each:.0f}" if name == "PF14" else "-",
                f"{size / 1000:.1f}",
                f"{seconds / count * PAPER_COUNT / 3600:.2f}" if paper else "-",
                f"{size * PAPER_COUNT / 1e9:.2f}" if paper else "-",
            ]
        )
    headers = ["spec", "stimuli", "ms a stimulus and core", "times the original's speed", "kB a stimulus",
               f"hours for {PAPER_COUNT:,}", f"GB for {PAPER_COUNT:,}"]  # fmt: skip
    return Table(headers, table)
