"""The installer: versions from one place, failures that name the step and the way out."""

import hashlib
import importlib.util
import os
import re
import subprocess
import sys

import pytest
from helpers.paths import ROOT


@pytest.fixture
def install(monkeypatch, tmp_path):
    """The installer as a module, its environment in a folder of its own."""
    spec = importlib.util.spec_from_file_location("install", ROOT / "tools/install.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(module, "STAMP", tmp_path / ".venv/installed")
    return module


def test_every_version_is_pinned_in_one_place(install):
    wanted = install.read_requirements()
    for section in ("torch", "runtime", "dev", "panopticapi", "wheel"):
        assert wanted[section]
        assert all("==" in line for line in wanted[section]), section
    assert re.search(r"--hash=sha256:[0-9a-f]{64}$", wanted["wheel"][0])
    assert "==" not in (ROOT / "setup.py").read_text()


def test_a_failing_step_is_named_with_the_way_out(install):
    with pytest.raises(install.InstallError, match="(?s)boom.*step 'libraries' failed. Try again."):
        install.run("libraries", "Try again.", sys.executable, "-c", "raise SystemExit('boom')")
    with pytest.raises(install.InstallError, match="step 'libraries': .*no_such_program.* Try again."):
        install.run("libraries", "Try again.", "no_such_program")


@pytest.mark.parametrize(
    "found,git,choice,expected",
    [
        ("/site/detectron2", "upstream", "auto", "the importable one at /site/detectron2"),
        ("", "upstream", "auto", "upstream"),
        ("", "", "auto", "re-upload"),
        ("/site/detectron2", "upstream", "git", "upstream"),
        ("/site/detectron2", "upstream", "wheel", "re-upload"),
        ("", "", "git", None),
        ("", "", "importable", None),
    ],
)
def test_detectron2_comes_from_the_first_source_that_works(install, monkeypatch, found, git, choice, expected):
    steps = []
    monkeypatch.setattr(install, "importable", lambda python: found if python == sys.executable else "/site")
    monkeypatch.setattr(install, "install_from_git", lambda url: git)
    monkeypatch.setattr(install, "install_wheel", lambda requirements: "re-upload")
    monkeypatch.setattr(install, "run", lambda step, *rest: steps.append(step))
    if expected is None:
        with pytest.raises(install.InstallError, match="step 'detectron2'.*CRBP_DETECTRON2=auto"):
            install.install(choice)
        return
    assert install.install(choice) == expected
    # The importable one was built for its own torch, so that one stays.
    assert ("torch (the long one)" in steps) == (not expected.startswith("the importable"))


def test_nothing_is_done_when_nothing_changed(install, monkeypatch):
    calls = []
    monkeypatch.delenv("CRBP_DETECTRON2", raising=False)
    monkeypatch.setattr(install, "install", lambda choice: calls.append(choice) or "somewhere")
    install.VENV.mkdir()
    assert install.main() == 0 and install.main() == 0
    assert calls == ["auto"]
    assert install.STAMP.read_text().splitlines()[1] == "somewhere"
    install.STAMP.write_text(hashlib.sha256(b"older").hexdigest() + "\nsomewhere\n")
    assert install.main() == 0
    assert calls == ["auto", "auto"]


def test_a_bad_choice_is_refused():
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools/install.py")],
        env={**os.environ, "CRBP_DETECTRON2": "pip"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert "CRBP_DETECTRON2='pip' is none of auto, importable, git, wheel" in done.stderr
