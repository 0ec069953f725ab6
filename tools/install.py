"""Create `.venv` with every pinned package and detectron2. Standard library only; run by `make install`.

Versions come from requirements.txt. Nothing is done when neither that file nor this one changed
since the last run that succeeded.

Where detectron2 comes from (environment variable CRBP_DETECTRON2: auto, importable, git, wheel):
  importable  the interpreter that runs this script can import it already; its torch is kept as well
  git         upstream, built from source; needs a C++ compiler
  wheel       the re-upload pinned by hash in requirements.txt, without compiled operators
`auto` tries them in this order.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "installed"
REQUIREMENTS = ROOT / "requirements.txt"
CHOICES = ("auto", "importable", "git", "wheel")


class InstallError(Exception):
    """One step failed; the message names it and the way out."""


def read_requirements() -> dict[str, list[str]]:
    """`[name]` headers of requirements.txt -> the lines below each."""
    sections: dict[str, list[str]] = {}
    for line in REQUIREMENTS.read_text().splitlines():
        line = line.strip()
        if header := re.fullmatch(r"\[(\w+)\]", line):
            sections[header[1]] = []
        elif line and not line.startswith("#"):
            sections[list(sections)[-1]].append(line)
    return sections


def run(step: str, way_out: str, *command: object) -> str:
    """Run a command, return what it printed; on failure show the end of that and stop."""
    try:
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=ROOT)
    except OSError as error:
        raise InstallError(f"step '{step}': {error}. {way_out}") from None
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-12:])
        raise InstallError(f"{tail}\nstep '{step}' failed. {way_out}")
    return done.stdout


def pip(step: str, *arguments: object) -> None:
    print(f"install: {step} ...", flush=True)
    way_out = "Check the network and the free disk space (8 GB), then run `make install` again."
    run(
        step, way_out, VENV / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments
    )


def importable(python: object) -> str:
    """Where `python` imports detectron2 from, or "" if it cannot."""
    code = "import detectron2, os; print(os.path.dirname(detectron2.__file__))"
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, cwd=VENV.parent / "tools")
    return done.stdout.strip() if done.returncode == 0 else ""


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
    site = run("site-packages", "Run `make clean install`.", VENV / "bin/python", "-c",
               "import sysconfig; print(sysconfig.get_path('purelib'))").strip()  # fmt: skip
    pinned = VENV / "detectron2-wheel.txt"
    pinned.write_text("\n".join(requirements) + "\n")
    # The file is tagged for CPython 3.10 but holds no compiled code, so it runs on every later version.
    pip("detectron2, pinned re-upload", "--no-deps", "--only-binary=:all:", "--python-version", "3.10",
        "--require-hashes", "--upgrade", "--target", site, "-r", pinned)  # fmt: skip
    return f"the re-upload {requirements[0].split()[0]} (no compiled operators)"


def install(choice: str) -> str:
    """Make the environment from nothing or bring it up to date; return where detectron2 came from."""
    wanted = read_requirements()
    found = importable(sys.executable) if choice in ("auto", "importable") else ""
    if choice == "importable" and not found:
        raise InstallError(f"step 'detectron2': {sys.executable} cannot import detectron2. Use CRBP_DETECTRON2=auto.")
    if not (VENV / "bin/python").exists():
        print(f"install: creating .venv with {sys.executable} ...", flush=True)
        way_out = "Install Python's venv module (Debian: apt install python3-venv)."
        share = ["--system-site-packages"] if found else []
        run("create .venv", way_out, sys.executable, "-m", "venv", *share, VENV)
    if not found:
        pip("torch (the long one)", *wanted["torch"])
    pip("libraries", *wanted["runtime"], *wanted["dev"])
    pip("panopticapi", "--no-deps", *wanted["panopticapi"])
    if found:
        origin = f"the importable one at {found}"
    else:
        origin = install_from_git(wanted["upstream"][0]) if choice in ("auto", "git") else ""
        if choice == "git" and not origin:
            raise InstallError(f"step 'detectron2': {wanted['upstream'][0]} cannot be reached or does not build. "
                               "Use CRBP_DETECTRON2=auto.")  # fmt: skip
        origin = origin or install_wheel(wanted["wheel"])
    pip("crbp_d2 itself", "--no-deps", "--no-build-isolation", "--editable", ROOT)
    if not importable(VENV / "bin/python"):
        raise InstallError("step 'detectron2': installed, yet .venv cannot import it. Run `make clean install`.")
    return origin


def main() -> int:
    if sys.version_info < (3, 10):  # noqa: UP036  (this script runs before anything has checked)
        print(f"install: Python 3.10 or later is needed, {sys.executable} is {sys.version.split()[0]}; "
              "name another with `make install PYTHON=python3.11`.", file=sys.stderr)  # fmt: skip
        return 1
    choice = os.environ.get("CRBP_DETECTRON2", "auto")
    if choice not in CHOICES:
        print(f"install: CRBP_DETECTRON2={choice!r} is none of {', '.join(CHOICES)}.", file=sys.stderr)
        return 1
    content = REQUIREMENTS.read_bytes() + Path(__file__).read_bytes() + (ROOT / "setup.py").read_bytes()
    key = hashlib.sha256(content + choice.encode()).hexdigest()
    if STAMP.exists() and STAMP.read_text().splitlines()[0] == key:
        return 0
    if shutil.disk_usage(ROOT).free < 8e9 and not STAMP.exists():
        print("install: fewer than 8 GB are free on this disk, and torch alone may need 6.", file=sys.stderr)
    try:
        origin = install(choice)
    except InstallError as error:
        print(f"install: {error}", file=sys.stderr)
        return 1
    STAMP.write_text(f"{key}\n{origin}\n")
    print(f"install: done; detectron2 is {origin}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
