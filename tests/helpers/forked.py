"""Programs in new processes that are copies of one which has imported what they need.

For what a test says of processes and not of how they are started: an import takes longer than a small run.
"""

import functools
import multiprocessing
import os
import runpy
import sys
import traceback
from collections.abc import Iterable, Mapping
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch
from helpers.paths import ROOT

# Nothing is computed in the server of the copies, and nothing is registered. The last two are what a run imports late.
PRELOADED = [
    "crbp_d2.cli.generate_pathfinder", "crbp_d2.cli.check_dataset", "crbp_d2.cli.predict", "crbp_d2.engine.run",
    "tools.soak.kills", "tools.soak.checkpoints", "torch.utils.cpp_extension", "torch.utils.tensorboard",
]  # fmt: skip


def run(program: str | Path, arguments: Iterable, log: Path, **options) -> int:
    """Run a program to its end; its exit status. Arguments are those of `start`."""
    process = start(program, arguments, log, **options)
    process.join()
    return process.exitcode


def start(program: str | Path, arguments: Iterable, log: Path, environment: Mapping[str, str] | None = None,
          folder: Path = ROOT) -> BaseProcess:  # fmt: skip
    """Start a program; its process.

    Args:
        program: path of a file, or name of a module, to run as `__main__`.
        arguments: its command-line arguments.
        log: file of its output and that of its processes.
        environment: variables in addition to those of the tests, for modules that are not imported yet.
        folder: its working directory.
    """
    serve()
    words = [str(program), *map(str, arguments)]
    context = multiprocessing.get_context("forkserver")
    variables = {**os.environ, **(environment or {})}
    # As of a process that a shell starts: how data workers start is not what this one was started by.
    method = multiprocessing.get_start_method()
    process = context.Process(target=_run, args=(words, str(log), variables, str(folder), method))
    process.start()
    return process


def serve() -> None:
    """Start the server unless it runs."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOADED)
    with pytest.MonkeyPatch.context() as patch:
        # Where it finds the modules.
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "tests")]))
        forkserver.ensure_running()


def _run(words: list[str], log: str, environment: dict[str, str], folder: str, method: str) -> None:
    with open(log, "ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    multiprocessing.set_start_method(method, force=True)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = words
    # The further processes of a run are copies too.
    started = torch.multiprocessing.start_processes
    torch.multiprocessing.start_processes = functools.partial(started, start_method="fork")
    try:
        (runpy.run_path if words[0].endswith(".py") else runpy.run_module)(words[0], run_name="__main__")
    except Exception:
        traceback.print_exc()
        sys.exit(1)
    finally:
        sys.stdout.flush()
