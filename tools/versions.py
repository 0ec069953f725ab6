"""`make install` and the quick tests under several versions of Python and torch, one after the other; a table.

python -m tools.versions                         # every Python of VERSIONS that is found, then the oldest torch
python -m tools.versions --only 3.12             # one of them

A copy of the checkout is installed and tested for each, so nothing of an environment that is there is used.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from .page import markdown_table
from .test_matrix import summary

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "output/versions"
# name -> Python, and the packages that are there before `make install` (which keeps a torch that it finds).
VERSIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "3.10": ("3.10", ()),
    "3.11": ("3.11", ()),
    "3.12": ("3.12", ()),
    "3.13": ("3.13", ()),
    "torch 2.4": ("3.11", ("torch==2.4.1", "torchvision==0.19.1", "numpy<2.3")),
}
QUICK = ("tests/cells", "tests/layers", "tests/recurrence", "tests/modeling", "tests/test_import.py",
         "tests/test_public_api.py", "tests/test_model_zoo.py")  # fmt: skip


class Failed(Exception):
    """A step failed; the message ends with what it printed last."""


def main(arguments: list[str] | None = None) -> int:
    """The exit status: 0 if the tests pass wherever a Python was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=VERSIONS, default=list(VERSIONS), metavar="NAME",
                        help=f"some of: {', '.join(VERSIONS)}")  # fmt: skip
    args = parser.parse_args(arguments)
    rows, passed = [], True
    for name in args.only:
        python, before = VERSIONS[name]
        interpreter = find_python(python)
        if interpreter is None:
            rows.append([python, "-", "-", "no such Python here"])
            continue
        folder = FOLDER / name.replace(" ", "_")
        try:
            rows.append(list(tested(folder, interpreter, before)))
        except Failed as error:
            print(error, file=sys.stderr)
            rows.append([python, " ".join(before[:1]) or "-", "-", str(error).splitlines()[0]])
            passed = False
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        print(f"{name}: {rows[-1][-1]}", flush=True)
    print("\n" + markdown_table(["Python", "torch", "detectron2", "result"], rows))
    return int(not passed)


def find_python(version: str) -> Path | None:
    """An interpreter of this version: on the path, or of pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    on_path = shutil.which(f"python{version}")
    candidates = [on_path] if on_path else []
    candidates += [str(path) for path in sorted(pyenv.glob(f"{version}.*/bin/python"), reverse=True)]
    for candidate in candidates:
        code = "import sys; print('%d.%d' % sys.version_info[:2])"
        done = subprocess.run([candidate, "-c", code], capture_output=True, text=True)
        if done.stdout.strip() == version:
            return Path(candidate)
    return None


def tested(folder: Path, interpreter: Path, before: tuple[str, ...]) -> tuple[str, str, str, str]:
    """Versions of Python, torch and detectron2 in a new environment, and how the tests end there."""
    checkout = folder / "checkout"
    left_out = shutil.ignore_patterns(".git", ".venv", "output", "datasets", "*.egg-info", ".*_cache", "__pycache__")
    shutil.copytree(ROOT, checkout, ignore=left_out, dirs_exist_ok=True)
    if before:
        base = folder / "base"
        run(folder, interpreter, "-m", "venv", base)
        interpreter = base / "bin/python"
        run(folder, interpreter, "-m", "pip", "install", "-q", *before)
    run(checkout, "make", "install", f"PYTHON={interpreter}")
    python = checkout / ".venv/bin/python"
    code = """
import importlib.metadata, sys, torch
names = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}
detectron2 = next(f"{name} {version}" for name, version in names.items() if name and name.endswith("detectron2"))
print(sys.version.split()[0], torch.__version__, detectron2, sep="|")
"""
    versions = run(checkout, python, "-W", "ignore", "-c", code).strip().splitlines()[-1].split("|")
    printed = run(checkout, python, "-m", "pytest", "-n", "2", "-m", "not slow and not gpu", "--tb=short", *QUICK)
    return versions[0], versions[1], versions[2], summary(printed)


def run(folder: Path, *command: object) -> str:
    """Output of a command; raises Failed with its last lines if it fails."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("VIRTUAL_ENV", None)
    done = subprocess.run([str(part) for part in command], cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        printed = (done.stdout + done.stderr).strip().splitlines()
        raise Failed("\n".join([f"fails: {printed[-1] if printed else done.returncode}", *printed[-60:]]))
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
