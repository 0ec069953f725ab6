"""The tests under other threads, other kernels of the processor and under load; a table of results.

python -m tools.test_matrix
python -m tools.test_matrix --only "2 threads" -- tests/layers
"""

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from .page import markdown_table

ROOT = Path(__file__).resolve().parent.parent
# name -> environment
CONDITIONS: dict[str, Mapping[str, str]] = {
    "1 thread": {"OMP_NUM_THREADS": "1"},
    "2 threads": {"OMP_NUM_THREADS": "2"},
    "torch without vectors": {"OMP_NUM_THREADS": "1", "ATEN_CPU_CAPABILITY": "default"},
    "torch with AVX2": {"OMP_NUM_THREADS": "1", "ATEN_CPU_CAPABILITY": "avx2"},
    "oneDNN with AVX2": {"OMP_NUM_THREADS": "1", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    "oneDNN with SSE4.1": {"OMP_NUM_THREADS": "1", "ONEDNN_MAX_CPU_ISA": "SSE41"},
    "all cores busy": {"OMP_NUM_THREADS": "1"},
}
BUSY = "all cores busy"


def main(arguments: list[str] | None = None) -> int:
    """The exit status: 0 if the tests pass under every condition."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=CONDITIONS, default=list(CONDITIONS), metavar="CONDITION",
                        help=f"some of: {', '.join(CONDITIONS)}")  # fmt: skip
    parser.add_argument("tests", nargs="*", default=["tests"], help="files or folders (default: all)")
    args = parser.parse_args(arguments)
    rows, statuses = [], []
    for name in args.only:
        start = time.monotonic()
        with busy_cores(os.cpu_count() or 1 if name == BUSY else 0):
            status, summary = run_tests(args.tests, CONDITIONS[name])
        environment = " ".join(f"{key}={value}" for key, value in CONDITIONS[name].items())
        rows.append([name, environment, summary, f"{(time.monotonic() - start) / 60:.1f}"])
        statuses.append(status)
        print(f"{name}: {summary}", flush=True)
    print("\n" + markdown_table(["condition", "environment", "result", "minutes"], rows))
    return int(any(statuses))


def run_tests(tests: list[str], environment: Mapping[str, str]) -> tuple[int, str]:
    """Exit status and last line of pytest; what failed goes to the terminal."""
    command = [sys.executable, "-m", "pytest", "-n", "2", "--dist", "loadfile", "--tb=short",
               "--show-capture=no", *tests]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True)
    if done.returncode:
        print("\n".join((done.stdout + done.stderr).splitlines()[-60:]), flush=True)
    return done.returncode, summary(done.stdout)


def summary(printed: str) -> str:
    """The counts in the output of pytest."""
    summaries = re.findall(r"^=*\s*(\d+ .*?) in [\d.]+s.*$", printed, flags=re.MULTILINE)
    return summaries[-1] if summaries else "no test ran"


@contextmanager
def busy_cores(count: int) -> Iterator[None]:
    """Keep as many cores busy with loops of other processes."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


if __name__ == "__main__":
    sys.exit(main())
