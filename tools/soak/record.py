"""The results of a soak test, kept row by row, so that it can be stopped and resumed."""

import json
from pathlib import Path


class Record:
    """Rows of a file of JSON lines; a line that a kill cut is dropped.

    Args:
        path: is made with the first row.
    """

    def __init__(self, path: Path):
        self.path = path
        self.rows: list[dict] = []
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    self.rows.append(json.loads(line))
                except json.JSONDecodeError:
                    break
            self._write(self.rows, "w")

    def add(self, row: dict) -> None:
        self.rows.append(row)
        self._write([row], "a")

    def _write(self, rows: list[dict], mode: str) -> None:
        with self.path.open(mode, encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
