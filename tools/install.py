"""Create `.venv` with every pinned package and detectron2. Standard library only; run by `make install`.

Versions come from requirements*.txt. Nothing is installed when neither these files, pyproject.toml nor this one changed
since the last run that succeeded.

Where detectron2 comes from (environment variable CRBP_DETECTRON2: auto, importable, git, wheel):
  importable  the interpreter that runs this script can import it already
  git         upstream, built from source; needs a C++ compiler
  wheel       the re-upload pinned by hash in requirements-detectron2.txt, without compiled operators
`auto` tries them in this order. A torch that the interpreter can import is kept in any case, and so are its
libraries: `.venv` then holds only what is missing there.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "installed"
UPSTREAM = "https://github.com/facebookresearch/detectron2.git"
CHOICES = ("auto", "importable", "git", "wheel")
# Pinned whatever the interpreter has: detectron2 needs a setuptools with pkg_resources, the tests their tools.
ALWAYS = ("setuptools", "pytest", "pytest-xdist", "ruff", "mypy", "hypothesis")
ENTER = "enter the environment with `. .venv/bin/activate`"


class InstallError(Exception):
    """One step failed; the message names it and the fix."""


@dataclass(frozen=True)
class Interpreter:
    """A Python and its packages.

    path: its executable; folders: those of its packages; versions: name and version of each package.
    torch, detectron2: where it imports them from, "" if it cannot.
    """

    path: str
    folders: tuple[str, ...] = ()
    versions: tuple[tuple[str, str], ...] = ()
    torch: str = ""
    detectron2: str = ""

    @classmethod
    def inspect(cls, path: object) -> "Interpreter":
        code = """
import importlib.metadata, json, os, sys
def origin(name):
    try:
        return os.path.dirname(__import__(name).__file__)
    except Exception:
        return ""
found = {"torch": origin("torch"), "detectron2": origin("detectron2")}
found["folders"] = [p for p in sys.path if p.endswith(("site-packages", "dist-packages"))]
there = importlib.metadata.distributions()
found["versions"] = sorted({(d.metadata["Name"], d.version) for d in there if d.metadata["Name"]})
print(json.dumps(found))
"""
        done = subprocess.run(
            [str(path), "-W", "ignore", "-c", code], capture_output=True, text=True, cwd=ROOT / "tools"
        )
        if done.returncode:
            raise InstallError(f"step 'interpreter': {path} does not run: {done.stderr.strip()[-300:]}")
        found = json.loads(done.stdout.splitlines()[-1])
        versions = tuple((normalized(name), version) for name, version in found["versions"])
        return cls(str(path), tuple(found["folders"]), versions, found["torch"], found["detectron2"])


def base_python() -> str:
    """The interpreter that `.venv` builds on: the one that runs this, or the one that `.venv` was made with."""
    if Path(sys.prefix).resolve() != VENV.resolve():
        return sys.executable
    recorded = STAMP.read_text().splitlines()[2:3] if STAMP.exists() else []
    return recorded[0] if recorded else getattr(sys, "_base_executable", sys.executable)


def normalized(name: str) -> str:
    return re.sub("[-_.]+", "-", name).lower()


def pins(file: str) -> list[str]:
    """The requirements that a file lists itself."""
    lines = (line.strip() for line in (ROOT / file).read_text().splitlines())
    return [line for line in lines if line and not line.startswith(("#", "-"))]


def wanted(requirements: list[str], base: Interpreter) -> list[str]:
    """Requirements that an interpreter whose torch is kept lacks in any version."""
    if not base.torch:
        return requirements
    present = {name for name, _ in base.versions} - set(ALWAYS)
    if any(name.startswith("opencv-") for name in present):
        # One package under several names.
        present.add("opencv-python-headless")
    return [line for line in requirements if normalized(re.match(r"[\w.-]+", line)[0]) not in present]


def run(step: str, hint: str, *command: object) -> str:
    """Run a command, return what it printed; on failure show the end of that and stop."""
    try:
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=ROOT)
    except OSError as error:
        raise InstallError(f"step '{step}': {error}. {hint}") from None
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-12:])
        raise InstallError(f"{tail}\nstep '{step}' failed. {hint}")
    return done.stdout


def pip(step: str, *arguments: object) -> None:
    print(f"install: {step} ...", flush=True)
    hint = "Check the network and the free disk space (8 GB), then run `make install` again."
    run(step, hint, VENV / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments)


def upstream_revision(url: str) -> str:
    """The commit upstream's git is at, or "" where git or its host cannot be reached within seconds."""
    try:
        command = ["git", "ls-remote", url, "HEAD"]
        environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
        done = subprocess.run(command, capture_output=True, text=True, timeout=15, env=environment)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.split()[0] if done.returncode == 0 and done.stdout else ""


def install_from_git(url: str) -> str:
    """Build upstream's current commit; return a description, or "" where it cannot be had."""
    revision = upstream_revision(url)
    if not revision:
        return ""
    try:
        pip("detectron2 from source (minutes)", "--no-build-isolation", "--no-deps", f"git+{url}@{revision}")
    except InstallError as error:
        print(f"install: upstream does not build here, so the re-upload is taken instead\n{error}", file=sys.stderr)
        return ""
    return f"upstream {url} at {revision}"


def install_wheel(requirements: list[str]) -> str:
    """Install the re-upload; pip refuses a file whose hash is not the pinned one."""
    pinned = VENV / "detectron2-wheel.txt"
    pinned.write_text("\n".join(requirements) + "\n")
    # The file is tagged for CPython 3.10 but holds no compiled code, so it runs on every later version.
    pip("detectron2, pinned re-upload", "--no-deps", "--only-binary=:all:", "--python-version", "3.10",
        "--require-hashes", "--upgrade", "--target", site_packages(), "-r", pinned)  # fmt: skip
    return f"the re-upload {requirements[0].split()[0]} (no compiled operators)"


def create(base: Interpreter) -> None:
    """Make `.venv`, which sees the packages of an interpreter whose torch is kept."""
    if not (VENV / "bin/python").exists():
        print(f"install: creating .venv with {base.path} ...", flush=True)
        hint = "Install Python's venv module (Debian: apt install python3-venv)."
        run("create .venv", hint, base.path, "-m", "venv", VENV)
    if base.torch:
        # Not --system-site-packages: that shows the packages of the system, but not those of a virtual environment.
        lines = [f"import site; site.addsitedir({folder!r})" for folder in base.folders]
        (site_packages() / "packages_of_the_interpreter.pth").write_text("\n".join(lines) + "\n")


def site_packages() -> Path:
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return Path(run("site-packages", "Run `make clean install`.", VENV / "bin/python", "-c", code).strip())


def install(choice: str, base: Interpreter) -> str:
    """Make the environment from nothing or bring it up to date; return where detectron2 came from."""
    found = base.detectron2 if choice in ("auto", "importable") else ""
    if choice == "importable" and not found:
        raise InstallError(f"step 'detectron2': {base.path} cannot import detectron2. Use CRBP_DETECTRON2=auto.")
    create(base)
    # pip may add to what is kept, but not replace it.
    kept = VENV / "kept.txt"
    same = [f"{name}=={version}" for name, version in base.versions if base.torch and name in ("torch", "numpy")]
    kept.write_text("\n".join(same) + "\n")
    runtime = wanted(pins("requirements.txt"), base)
    torch = [line for line in runtime if line.startswith("torch")]
    if base.torch:
        # Only torchvision, in the version that matches the torch present.
        torch = [line.split("==")[0] for line in torch]
    if torch:
        pip("torch (the long one)", "--constraint", kept, *torch)
    libraries = [line for line in runtime if not line.startswith("torch")]
    pip("libraries", "--constraint", kept, *libraries, *wanted(pins("requirements-dev.txt"), base))
    if panopticapi := wanted(pins("requirements-panopticapi.txt"), base):
        pip("panopticapi", "--no-deps", *panopticapi)
    if found:
        origin = f"the importable one at {found}"
    else:
        origin = install_from_git(UPSTREAM) if choice in ("auto", "git") else ""
        if choice == "git" and not origin:
            raise InstallError(f"step 'detectron2': {UPSTREAM} cannot be reached or does not build. "
                               "Use CRBP_DETECTRON2=auto.")  # fmt: skip
        origin = origin or install_wheel(pins("requirements-detectron2.txt"))
    pip("crbp_d2 itself", "--no-deps", "--no-build-isolation", "--editable", ROOT)
    made = Interpreter.inspect(VENV / "bin/python")
    for package in ("torch", "detectron2"):
        if not getattr(made, package):
            raise InstallError(f"step '{package}': installed, yet .venv cannot import it. Run `make clean install`.")
    return origin


def fingerprint(choice: str) -> str:
    """Changes where something that decides the environment does."""
    files = [*sorted(ROOT.glob("requirements*.txt")), ROOT / "pyproject.toml", Path(__file__)]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files) + choice.encode()).hexdigest()


def main() -> int:
    if sys.version_info < (3, 10):  # noqa: UP036  (this script runs before anything has checked)
        print(f"install: Python 3.10 or later is needed, {sys.executable} is {sys.version.split()[0]}; "
              "name another with `make install PYTHON=python3.11`.", file=sys.stderr)  # fmt: skip
        return 1
    choice = os.environ.get("CRBP_DETECTRON2", "auto")
    if choice not in CHOICES:
        print(f"install: CRBP_DETECTRON2={choice!r} is none of {', '.join(CHOICES)}.", file=sys.stderr)
        return 1
    key = fingerprint(choice)
    if STAMP.exists() and STAMP.read_text().splitlines()[0] == key:
        print(f"install: nothing to do; {ENTER}")
        return 0
    if shutil.disk_usage(ROOT).free < 8e9 and not STAMP.exists():
        print("install: fewer than 8 GB are free on this disk, and torch itself may need 6.", file=sys.stderr)
    try:
        base = Interpreter.inspect(base_python())
        origin = install(choice, base)
    except InstallError as error:
        print(f"install: {error}", file=sys.stderr)
        return 1
    STAMP.write_text(f"{key}\n{origin}\n{base.path}\n")
    print(f"install: done; detectron2 is {origin}\ninstall: {ENTER}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
