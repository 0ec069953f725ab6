"""Install commands for missing packages."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Where the name to install differs from the name to import.
INSTALL = {
    "detectron2": "git+https://github.com/facebookresearch/detectron2.git",
    "cv2": "opencv-python-headless",
}


def missing(package: str) -> str:
    """One sentence: that crbp_d2 needs this package (its name in Python), and the command that helps.

    In a checkout this is `make install`, or entering the environment that it made; else it is pip's.
    """
    if not (ROOT / "tools/install.py").is_file():
        hint = f"run `{sys.executable} -m pip install {INSTALL.get(package, package)}`"
    elif (ROOT / ".venv/installed").is_file() and not _is_running(ROOT / ".venv"):
        hint = f"enter the environment with `. {ROOT}/.venv/bin/activate`"
    else:
        hint = f"run `make install` in {ROOT} and enter the environment with `. .venv/bin/activate`"
    return f"crbp_d2 needs {package}, which {sys.executable} cannot import: {hint}"


def _is_running(environment: Path) -> bool:
    return Path(sys.prefix).resolve() == environment.resolve()
