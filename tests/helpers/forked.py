"""`crbp-train` in new processes that are copies of one which has imported it.

For what a test says of the processes of a run and not of how they are started: an import takes longer than such a run.
"""

import functools
import multiprocessing
import os
import runpy
import sys
import traceback
from multiprocessing import forkserver
from pathlib import Path

import pytest
import torch
from helpers.paths import ROOT

# Nothing is computed in the server of the copies, and nothing is registered.
PRELOADED = ["crbp_d2.engine.run", "tools.soak", "tools.soak.kills", "tools.soak.checkpoints"]


def run(program: str, arguments: list[str], environment: dict[str, str], log: Path) -> int:
    """Run a file or module as `__main__`; its exit status.

    Args:
        program: path of a file, or name of a module.
        arguments: of its command line.
        environment: variables beside those of the tests, in place before it is read.
        log: gets what it and its processes say.
    """
    context = multiprocessing.get_context("forkserver")
    with pytest.MonkeyPatch.context() as patch:
        # Where the server, which is started once, finds the modules.
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "tests")]))
        context.set_forkserver_preload(PRELOADED)
        forkserver.ensure_running()
    process = context.Process(target=_run, args=(program, arguments, {**os.environ, **environment}, str(log)))
    process.start()
    process.join()
    return process.exitcode


def _run(program: str, arguments: list[str], environment: dict[str, str], log: str) -> None:
    with open(log, "ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [program, *arguments]
    # The further processes of a run are copies too.
    start = torch.multiprocessing.start_processes
    torch.multiprocessing.start_processes = functools.partial(start, start_method="fork")
    try:
        (runpy.run_path if program.endswith(".py") else runpy.run_module)(program, run_name="__main__")
    except Exception:
        traceback.print_exc()
        sys.exit(1)
    finally:
        sys.stdout.flush()
