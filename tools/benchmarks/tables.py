"""Tables of measurements: CSV files under results/, with the command and the machine in the first line."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from crbp_d2.utils.files import write_text
from tools.page import machine, markdown_table

RESULTS = Path(__file__).with_name("results")


class Table(NamedTuple):
    """headers: names of the columns. rows: cells as they are printed."""

    headers: Sequence[str]
    rows: Sequence[Sequence[object]]


def write_table(name: str, command: str, table: Table) -> None:
    """Write results/<name>.csv and print the table.

    Args:
        command: arguments of `python -m tools.benchmarks` that measure it again.
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([table.headers, *table.rows])
    RESULTS.mkdir(exist_ok=True)
    write_text(RESULTS / f"{name}.csv", f"# python -m tools.benchmarks {command}: {machine()}\n{text.getvalue()}")
    print(f"{markdown_table(*table)}\n\nwritten: {RESULTS / name}.csv\n", flush=True)
