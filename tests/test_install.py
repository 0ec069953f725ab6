"""The installer: versions from one place, failures that name the step and the fix."""

import hashlib
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.paths import ROOT


@pytest.fixture
def install(monkeypatch, tmp_path):
    """The installer as a module, its environment in a folder of its own."""
    spec = importlib.util.spec_from_file_location("install", ROOT / "tools/install.py")
    module = importlib.util.module_from_spec(spec)
    # Where dataclasses look for the module of a class.
    monkeypatch.setitem(sys.modules, "install", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(module, "STAMP", tmp_path / ".venv/installed")
    return module


def test_every_version_is_pinned_in_one_place(install):
    for file in (
        "requirements.txt",
        "requirements-dev.txt",
        "requirements-panopticapi.txt",
        "requirements-detectron2.txt",
    ):
        assert install.pins(file)
        assert all("==" in line for line in install.pins(file)), file
    assert re.search(r"--hash=sha256:[0-9a-f]{64}$", install.pins("requirements-detectron2.txt")[0])
    assert "==" not in (ROOT / "pyproject.toml").read_text() + (ROOT / "setup.py").read_text()


def test_pip_reads_the_requirements():
    """Every line is one of pip's; nothing is fetched."""
    from packaging.requirements import Requirement

    for path in ROOT.glob("requirements*.txt"):
        for line in path.read_text().splitlines():
            if line and not line.startswith("#"):
                assert line == "-r requirements.txt" or Requirement(line.split(" --hash")[0]).specifier, (
                    path.name,
                    line,
                )


def test_what_the_interpreter_has_is_kept(install):
    base = install.Interpreter(
        "python", ("/site",), (("torch", "2.6.0+cu124"), ("numpy", "1.26.4"), ("opencv-python", "4.9"),
                               ("setuptools", "82.0"), ("hydra-core", "1.2")), torch="/site/torch",
    )  # fmt: skip
    requirements = ["torch==2.14.1", "torchvision==0.29.1", 'numpy==2.4.6; python_version >= "3.11"',
                    "setuptools==80.10.2", "opencv-python-headless==5.0.0.93", "hydra_core==1.3.8",
                    "yacs==0.1.8"]  # fmt: skip
    assert install.wanted(requirements, base) == ["torchvision==0.29.1", "setuptools==80.10.2", "yacs==0.1.8"]
    assert install.wanted(requirements, install.Interpreter("python", versions=base.versions)) == requirements


def test_a_failing_step_is_named_with_the_fix(install):
    with pytest.raises(install.InstallError, match="(?s)boom.*'libraries' failed. Try again."):
        install.run("libraries", "Try again.", sys.executable, "-c", "raise SystemExit('boom')")
    with pytest.raises(install.InstallError, match="'libraries': .*no_such_program.* Try"):
        install.run("libraries", "Try again.", "no_such_program")


@pytest.mark.parametrize(
    "detectron2,torch,git,choice,expected",
    [
        ("/site/detectron2", "/site/torch", "upstream", "auto", "the importable one at /site/detectron2"),
        ("", "", "upstream", "auto", "upstream"),
        ("", "", "", "auto", "re-upload"),
        ("", "/site/torch", "", "auto", "re-upload"),
        ("/site/detectron2", "/site/torch", "upstream", "git", "upstream"),
        ("/site/detectron2", "/site/torch", "upstream", "wheel", "re-upload"),
        ("", "", "", "git", None),
        ("", "/site/torch", "", "importable", None),
    ],
)
def test_detectron2_comes_from_the_first_source_that_works(
    install, monkeypatch, detectron2, torch, git, choice, expected
):
    steps = {}
    versions = (("torch", "2.6.0"), ("torchvision", "0.21.0"), ("numpy", "2.2.0")) if torch else ()
    base = install.Interpreter("python", ("/site",), versions, torch, detectron2)
    monkeypatch.setattr(install, "create", lambda base: install.VENV.mkdir())
    monkeypatch.setattr(
        install.Interpreter, "inspect", lambda python: install.Interpreter("", torch="/", detectron2="/")
    )
    monkeypatch.setattr(install, "install_from_git", lambda url: git)
    monkeypatch.setattr(install, "install_wheel", lambda requirements: "re-upload")
    monkeypatch.setattr(install, "pip", lambda step, *arguments: steps.update({step: arguments}))
    if expected is None:
        with pytest.raises(install.InstallError, match="step 'detectron2'.*CRBP_DETECTRON2=auto"):
            install.install(choice, base)
        return
    assert install.install(choice, base) == expected
    # One that is there stays, in its version.
    assert ("torch (the long one)" in steps) == (not torch)
    kept = (install.VENV / "kept.txt").read_text().split()
    assert kept == (["torch==2.6.0", "numpy==2.2.0"] if torch else [])
    assert steps["libraries"][:2] == ("--constraint", install.VENV / "kept.txt")
    assert any(str(argument).startswith("numpy") for argument in steps["libraries"]) == (not torch)


def test_packages_of_the_base_environment_are_visible(install, tmp_path):
    theirs = tmp_path / "theirs"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", theirs], check=True)
    (site,) = theirs.glob("lib/python*/site-packages")
    for name in ("torch", "detectron2"):
        (site / name).mkdir()
        (site / name / "__init__.py").touch()
    base = install.Interpreter.inspect(theirs / "bin/python")
    assert (base.torch, base.detectron2) == (str(site / "torch"), str(site / "detectron2"))
    install.create(base)
    made = install.Interpreter.inspect(install.VENV / "bin/python")
    assert (made.torch, made.detectron2) == (base.torch, base.detectron2)
    # Its own folder comes first.
    assert Path(made.folders[0]).is_relative_to(install.VENV)


def test_nothing_is_done_when_nothing_changed(install, monkeypatch, capsys):
    calls = []
    monkeypatch.delenv("CRBP_DETECTRON2", raising=False)
    monkeypatch.setattr(install, "install", lambda choice, base: calls.append(choice) or "somewhere")
    install.VENV.mkdir()
    for _ in range(2):
        assert install.main() == 0
        assert ". .venv/bin/activate" in capsys.readouterr().out.splitlines()[-1]
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
