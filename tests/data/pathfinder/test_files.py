"""Stimuli on disk: the same bytes however they came about, and nothing that passes for what it is not."""

import errno
import json
import signal
import zipfile

import numpy as np
import pytest
from helpers import forked

from crbp_d2.cli.generate_pathfinder import main
from crbp_d2.data.pathfinder import files as pathfinder_files
from crbp_d2.data.pathfinder.files import Split, is_complete, read_stimulus, write_split
from crbp_d2.data.pathfinder.spec import SPECS, PathfinderSpec
from crbp_d2.data.pathfinder.stimuli import generate_pathfinder

TINY = PathfinderSpec(3, window=32, image_size=32, dash_length=2, dash_thickness=1, margin=1, seed_distance=6,
                      border=1, distractor_dashes=1, dot_radius=2)  # fmt: skip


@pytest.fixture
def small_archives(monkeypatch):
    monkeypatch.setattr(pathfinder_files, "PER_FILE", 4)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def files_of(folder, split, **kwargs):
    write_split(folder, split, **kwargs)
    return contents(folder)


@pytest.mark.usefixtures("small_archives")
def test_files_hold_the_stimuli_and_do_not_depend_on_the_workers(tmp_path):
    split = Split(TINY, (5, 1), 10)
    one, two = files_of(tmp_path / "one", split), files_of(tmp_path / "two", split, workers=2)
    assert set(one) == {"00000.zip", "00001.zip", "00002.zip", "manifest.json"}
    assert one == two
    images, masks = generate_pathfinder(TINY, 10, seed=(5, 1))
    for number in (0, 3, 4, 9):
        image, target = read_stimulus(str(tmp_path / "two" / f"{number // 4:05d}.zip"), number, (32, 32))
        assert np.array_equal(image, images[number]) and np.array_equal(target, masks[number])
    assert is_complete(tmp_path / "one", split)


# Ends, without a chance to tidy up, in the middle of the second archive.
KILLED = """
import os, signal, sys
from pathlib import Path
from crbp_d2.cli.generate_pathfinder import main
from crbp_d2.data.pathfinder import files

files.PER_FILE = 4
write, written = files._write_archive, []

def write_first(folder, split, name):
    if written:
        Path(folder, f"{name}.partial").write_bytes(b"PK")
        os.kill(os.getpid(), signal.SIGKILL)
    written.append(name)
    return write(folder, split, name)

files._write_archive = write_first
main(sys.argv[1:])
"""


@pytest.mark.usefixtures("small_archives")
def test_a_killed_generation_goes_on_to_the_same_bytes(tmp_path):
    flags = ["--spec", "PF6s", "--train", "11", "--val", "5", "--seed", "3", "--output"]
    (tmp_path / "killed.py").write_text(KILLED)
    status = forked.run(tmp_path / "killed.py", [*flags, tmp_path / "killed", "--workers", "1"], tmp_path / "log")
    train = tmp_path / "killed/train"
    written = len(list(train.glob("*.zip")))
    assert status == -signal.SIGKILL
    assert written == 1 and not (tmp_path / "killed/val").exists()

    drawn, write = [], pathfinder_files._write_archive

    def counted(folder, *rest):
        drawn.append(folder)
        return write(folder, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pathfinder_files, "_write_archive", counted)
        main([str(part) for part in [*flags, tmp_path / "killed", "--workers", "1"]])
    assert drawn.count(train) == 3 - written
    main([str(part) for part in [*flags, tmp_path / "whole", "--workers", "1"]])
    for name in ("train", "val"):
        assert contents(tmp_path / "killed" / name) == contents(tmp_path / "whole" / name)


@pytest.mark.usefixtures("small_archives")
def test_a_folder_grows_but_never_mixes(tmp_path):
    write_split(tmp_path / "grown", Split(TINY, (5, 1), 6))
    grown = files_of(tmp_path / "grown", Split(TINY, (5, 1), 10))
    assert grown == files_of(tmp_path / "fresh", Split(TINY, (5, 1), 10))

    def refused(message, spec=TINY, seed=(5, 1), count=10):
        with pytest.raises(ValueError, match=message):
            write_split(tmp_path / "grown", Split(spec, seed, count))
        assert contents(tmp_path / "grown") == grown

    refused("dashes 3 there, 2 asked for", spec=PathfinderSpec(**{**TINY.__dict__, "dashes": 2}))
    refused(r"seed \[5, 1\] there, \[6, 1\] asked for", seed=(6, 1))
    refused("count 10 there, 7 asked for", count=7)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pathfinder_files, "GENERATOR", 2)
        refused("generator 1 there, 2 asked for")


@pytest.mark.usefixtures("small_archives")
def test_damaged_archives_are_drawn_again_or_named(tmp_path):
    split = Split(TINY, (5, 1), 10)
    whole = files_of(tmp_path / "a", split)
    archive = tmp_path / "a/00001.zip"
    content = bytearray(whole["00001.zip"])
    content[len(content) // 3] ^= 255
    archive.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{archive} is damaged or holds no stimulus \d"):
        for number in range(4, 8):
            read_stimulus(str(archive), number, (32, 32))
    assert files_of(tmp_path / "a", split) == whole
    (tmp_path / "a/00002.zip").unlink()
    assert files_of(tmp_path / "a", split) == whole


def test_foreign_files_are_named(tmp_path):
    foreign = tmp_path / "other.zip"
    with zipfile.ZipFile(foreign, "w") as file:
        file.writestr("readme.txt", "nothing of ours")
    with pytest.raises(ValueError, match=f"{foreign} is damaged or holds no stimulus 0"):
        read_stimulus(str(foreign), 0, (32, 32))
    (tmp_path / "text.zip").write_text("no archive")
    with pytest.raises(ValueError, match="text.zip is damaged"):
        read_stimulus(str(tmp_path / "text.zip"), 0, (32, 32))
    split = Split(TINY, (5, 1), 2)
    with pytest.raises(ValueError, match="holds archives but no manifest.json"):
        write_split(tmp_path, split)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match="manifest.json is damaged"):
        write_split(tmp_path, split)
    (tmp_path / "manifest.json").write_text(json.dumps({"spec": {}}))
    with pytest.raises(ValueError, match="manifest.json.*generator is None"):
        write_split(tmp_path, split)


@pytest.mark.usefixtures("small_archives")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_costs_only_the_file_being_written(tmp_path, monkeypatch, workers):
    split = Split(TINY, (5, 1), 10)
    writestr = zipfile.ZipFile.writestr

    def full(archive, entry, content):
        if entry.filename.startswith("000009"):
            raise OSError(errno.ENOSPC, "No space left on device")
        writestr(archive, entry, content)

    with monkeypatch.context() as patch:
        patch.setattr(zipfile.ZipFile, "writestr", full)
        with pytest.raises(OSError, match="No space left.*resumes.*00002.zip"):
            write_split(tmp_path / "a", split, workers=workers)
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"00000.zip", "00001.zip", "manifest.json"}
    assert files_of(tmp_path / "a", split) == files_of(tmp_path / "b", split)


def test_a_spec_that_does_not_fit_leaves_no_folder(tmp_path):
    spec = PathfinderSpec(**{**SPECS["PF6s"].__dict__, "dashes": 60, "distractor_dashes": 0})
    with pytest.raises(ValueError, match="the most that fit are"):
        write_split(tmp_path / "a", Split(spec, (0, 1), 4))
    assert not (tmp_path / "a").exists()
