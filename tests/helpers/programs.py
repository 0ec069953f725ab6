"""The programs of tools/ as a shell calls them."""

import runpy
import sys

import pytest
from helpers.paths import ROOT


def tool(name: str, *arguments: object) -> None:
    """Run tools/NAME.py with these arguments, in this process and the working directory.

    Raises:
        SystemExit: what the program ends with.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [f"tools/{name}.py", *map(str, arguments)])
        patch.setattr(sys, "path", list(sys.path))
        runpy.run_path(str(ROOT / f"tools/{name}.py"), run_name="__main__")
