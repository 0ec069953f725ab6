"""The console commands, which the tools of the same names call too: `commands.predict()` runs `crbp-predict`.

Each imports its program when it is called, so that a missing package is one sentence and no traceback.
"""

import functools
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from crbp_d2.utils.imports import missing

# Command -> module with its main(); in a shell `crbp-` and the command, with hyphens.
PROGRAMS = {
    "train": "crbp_d2.engine.run",
    "predict": "crbp_d2.cli.predict",
    "check_dataset": "crbp_d2.cli.check_dataset",
    "analyze_model": "crbp_d2.cli.analyze_model",
    "generate_pathfinder": "crbp_d2.cli.generate_pathfinder",
    "convert_authors_weights": "crbp_d2.cli.convert_authors_weights",
    "list_models": "crbp_d2.cli.list_models",
}


def __getattr__(name: str) -> Callable[[], None]:
    if name not in PROGRAMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return functools.partial(_run, PROGRAMS[name])


def _run(module: str) -> None:
    """Call a module's main() with the command line.

    Raises:
        SystemExit: with the status that main() returns, if any; with one sentence where a package is missing.
    """
    try:
        main = import_module(module).main
    except ModuleNotFoundError as error:
        sys.exit(f"{Path(sys.argv[0]).name}: {missing(error.name or str(error))}")
    status = main()
    if isinstance(status, int):
        sys.exit(status)
