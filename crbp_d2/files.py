"""Files that are whole or not there."""

import os
from pathlib import Path


def write_text(path: str | Path, text: str) -> None:
    """Write a file so that a kill leaves the old one or the new one."""
    partial = f"{path}.partial"
    Path(partial).write_text(text)
    os.replace(partial, path)


def write_figure(path: str | Path, figure, dpi: int = 120) -> None:
    """Likewise a figure of matplotlib, as PNG."""
    partial = f"{path}.partial"
    figure.savefig(partial, format="png", dpi=dpi)
    os.replace(partial, path)
