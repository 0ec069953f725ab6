"""The package as pip installs it, away from the checkout."""

import os
import re
import subprocess
import sys
import zipfile

import pytest
from helpers.paths import ROOT

import crbp_d2
from crbp_d2.cli import commands

CONFIG = "quick/pathfinder_hgru_crbp_instant_test.yaml"
FIND = f"import crbp_d2.model_zoo as z; print(z.get_config_file({CONFIG!r}))"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, since setuptools writes its build folder into the sources."""
    folder = tmp_path_factory.mktemp("wheel")
    tracked = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    names = tracked.stdout.split("\n") if tracked.returncode == 0 else map(str, ROOT.rglob("*"))
    for name in names:
        source, copy = ROOT / name, folder / "source" / name
        if source.is_file() and re.match(r"(crbp_d2|configs)/|[^/]*$", name):
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(source.read_bytes())
    command = ["-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, folder / "source"]
    done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("*.whl"))


@pytest.mark.slow
def test_it_holds_every_module_and_config_and_nothing_else(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {p.relative_to(ROOT).as_posix() for p in (ROOT / "crbp_d2").rglob("*.py")}
    configs = {
        f"crbp_d2/{p.relative_to(ROOT).as_posix()}" for s in ("yaml", "py") for p in ROOT.glob(f"configs/**/*.{s}")
    }
    packaged = {name for name in names if not re.match(r"crbp_d2-[\d.]+\.dist-info/", name)}
    assert packaged == modules | configs | {"crbp_d2/py.typed"}
    metadata = zipfile.ZipFile(wheel).read(f"crbp_d2-{crbp_d2.__version__}.dist-info/METADATA").decode()
    assert "detectron2" not in " ".join(re.findall(r"^Requires-Dist: (.*)$", metadata, flags=re.M))


@pytest.mark.slow
def test_it_trains_from_an_empty_folder(wheel, tmp_path):
    site, work = tmp_path / "site", tmp_path / "work"
    work.mkdir()
    command = ["-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", site, wheel]
    done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    # Before whatever this environment has, such as the checkout in its editable form.
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}

    def run(*words):
        done = subprocess.run([*map(str, words)], cwd=work, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ""

    assert run(sys.executable, "-c", "import crbp_d2; print(crbp_d2.__file__)").startswith(str(site))
    config = run(sys.executable, "-c", FIND)
    assert config == str(site / "crbp_d2/configs" / CONFIG)
    run(sys.executable, site / "bin/crbp-train", "--config-file", config, "SOLVER.MAX_ITER", 2, "OUTPUT_DIR", "out")
    assert (work / "out/model_final.pth").is_file() and (work / "out/metrics.json").is_file()
    assert (
        CONFIG
        in subprocess.run(
            [sys.executable, site / "bin/crbp-list-models"], cwd=work, env=environment, capture_output=True, text=True
        ).stdout
    )


def test_every_console_command_is_a_function_beside_a_tool():
    table = (ROOT / "pyproject.toml").read_text().split("[project.scripts]\n")[1].split("\n\n")[0]
    scripts = dict(re.findall(r'^([\w-]+) = "(.+)"$', table, flags=re.M))
    assert len(scripts) == len(commands.PROGRAMS)
    for name, target in scripts.items():
        module, function = target.split(":")
        assert module == commands.__name__ and callable(getattr(commands, function))
        tool = {"train": "train_net"}.get(function, function)
        assert tool == "list_models" or (ROOT / f"tools/{tool}.py").is_file(), name
