"""Two revisions of the package compared."""

import shutil
import subprocess

import pytest

from tools.benchmarks import __main__ as benchmarks
from tools.benchmarks.earlier import Change, compare_versions, earlier_table
from tools.benchmarks.works import WORKS
from tools.revisions import ROOT, RevisionError, checked_out

QUICK = "hGRU, 1 x 64 px, crbp"
# A package of these names whose clock counts thousands of seconds.
CELLS = """
class Cell:
    def __init__(self, *_):
        self.zero_grad = lambda **_: None

ConvLSTMCell = GalaHGRUCell = HGRUCell = Cell
"""
RECURRENCE = """
import itertools, time
from types import SimpleNamespace

time.process_time = itertools.count(0, 1000).__next__

def learning_rule(rule, cell, **settings):
    return lambda drive: SimpleNamespace(state=[drive.clone().requires_grad_()], penalty=0)
"""


@pytest.fixture
def stand_in(tmp_path):
    for name, text in (("", ""), ("cells", CELLS), ("recurrence", RECURRENCE)):
        folder = tmp_path / "crbp_d2" / name
        folder.mkdir()
        (folder / "__init__.py").write_text(text)
    return tmp_path


def test_each_version_is_the_one_of_its_folder(stand_in):
    (change,) = compare_versions(stand_in, ROOT, [QUICK], rounds=1)
    assert change.work == QUICK and change.earlier == 1000 > change.now > 0
    assert change.ratio == change.now / 1000


@pytest.mark.parametrize("work", WORKS)
def test_all_works_can_be_built(work):
    assert callable(WORKS[work]())


def test_a_version_that_cannot_do_a_work_is_told(stand_in):
    (stand_in / "crbp_d2/recurrence/__init__.py").unlink()
    with pytest.raises(RevisionError, match=f"cannot run '{QUICK}'"):
        compare_versions(stand_in, ROOT, [QUICK], rounds=1)


@pytest.mark.skipif(shutil.which("git") is None, reason="a version comes from the history by git")
def test_a_revision_is_taken_from_the_history(tmp_path, monkeypatch):
    def git(*arguments):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments], cwd=tmp_path, check=True)

    (tmp_path / "crbp_d2").mkdir()
    file = tmp_path / "crbp_d2/version.py"
    git("init", "-q")
    for text in ("first", "second"):
        file.write_text(text)
        git("add", ".")
        git("commit", "-q", "-m", text)
    with checked_out("HEAD~1", "crbp_d2", repository=tmp_path) as folder:
        assert (folder / "crbp_d2/version.py").read_text() == "first" and file.read_text() == "second"
    assert not folder.exists()
    with pytest.raises(RevisionError, match="'nowhere'"), checked_out("nowhere", "crbp_d2", repository=tmp_path):
        pass
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RevisionError, match="not installed"), checked_out("HEAD", "crbp_d2", repository=tmp_path):
        pass


def test_the_command_says_what_is_wrong_in_a_sentence():
    with pytest.raises(SystemExit, match="benchmarks: "):
        benchmarks.main(["earlier", "no-such-revision"])


def test_the_table_has_the_ratios():
    (row,) = earlier_table([Change("b", 2, 2.1, 1.05)]).rows
    assert row == ["b", "2.000", "2.100", "1.05"]
