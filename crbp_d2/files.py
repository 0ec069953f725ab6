"""Files that are whole or not there."""

import os
from pathlib import Path


def write_text(path: str | Path, text: str) -> None:
    """Write a file so that a kill leaves the old one or the new one."""
    partial = f"{path}.partial"
    Path(partial).write_text(text)
    os.replace(partial, path)
