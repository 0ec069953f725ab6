"""The command that tests other versions of Python and torch, without installing any."""

import subprocess
import sys
from pathlib import Path

import pytest

from tools import versions
from tools.test_matrix import summary

HERE = "{}.{}".format(*sys.version_info)


def test_a_python_is_found_by_its_version(tmp_path, monkeypatch):
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert versions.find_python(HERE) is None
    (tmp_path / f"python{HERE}").symlink_to(sys.executable)
    assert versions.find_python(HERE) == tmp_path / f"python{HERE}"
    # A name that promises another version
    (tmp_path / "python2.7").symlink_to(sys.executable)
    assert versions.find_python("2.7") is None


def test_a_step_that_fails_shows_what_it_printed_last(tmp_path):
    assert versions.run(tmp_path, sys.executable, "-c", "print(3)") == "3\n"
    with pytest.raises(versions.Failed, match="^fails: SystemExit: no disk"):
        versions.run(tmp_path, sys.executable, "-c", "raise SystemExit('SystemExit: no disk')")


def test_a_version_that_fails_is_a_row_and_an_exit_status(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(versions, "FOLDER", tmp_path)
    monkeypatch.setattr(versions, "find_python", lambda version: None if version == "3.10" else Path(sys.executable))

    def tested(folder, interpreter, before):
        if before:
            raise versions.Failed("fails: no torch\nmore")
        return "3.11.7", "2.14.1", "detectron2 0.7", "9 passed"

    monkeypatch.setattr(versions, "tested", tested)
    assert versions.main(["--only", "3.10", "3.11"]) == 0
    assert versions.main(["--only", "torch 2.4"]) == 1
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    assert ["3.10", "-", "-", "no such Python here"] in rows
    assert ["3.11.7", "2.14.1", "detectron2 0.7", "9 passed"] in rows
    assert ["3.11", "torch==2.4.1", "-", "fails: no torch"] in rows


def test_what_pytest_counts_is_read_from_its_last_line(tmp_path):
    (tmp_path / "test_one.py").write_text("def test_right(): pass\ndef test_wrong(): assert 0\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_one.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert summary(done.stdout) == "1 failed, 1 passed"
    assert summary("ERROR: file or directory not found") == "no test ran"
