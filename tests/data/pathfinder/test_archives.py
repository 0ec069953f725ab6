"""Damaged archives and manifests: one line with the file, or the stimuli as written; memory of a few images."""

import json
import random
import zipfile

import numpy as np
import pytest
from helpers.paths import ROOT

from crbp_d2.data import register_pathfinder
from crbp_d2.data.pathfinder.dataset import split_of
from crbp_d2.data.pathfinder.files import MANIFEST, is_complete, read_stimulus, write_split
from crbp_d2.engine.run import main
from tools.data_sets import free
from tools.soak.archives import NAME, SPEC, STIMULI, Sets, outcome, stimuli_in
from tools.soak.archives import soak as soak_archives
from tools.soak.damage import ARCHIVES, BYTES, chunk, huge_png, png
from tools.soak.record import Record

DAMAGES = BYTES | ARCHIVES
# What must be refused, with a part of the message.
REFUSED = {
    "huge": "zip", "entry missing": "archive", "PNG bomb": "12000 x 12000 px",
    "text bomb": "not an image", "text for PNG": "not an image", "16 bits": "16 bits", "JPEG for PNG": "JPEG",
    "3 channels": "RGB", "another size": "24 x 23 px", "encrypted": "encrypted",
}  # fmt: skip


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    return Sets(tmp_path_factory.mktemp("sets"))


@pytest.fixture
def folder(sets, tmp_path):
    """A copy of the stimuli, to be damaged."""
    folder = tmp_path / NAME / "val"
    folder.mkdir(parents=True)
    for path in (sets.stimuli / NAME / "val").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_archive_is_named_or_read_as_it_was(sets, folder, name):
    DAMAGES[name](folder / "00000.zip", random.Random(5))
    found, problem = outcome(lambda: stimuli_in(folder.parents[1]), sets.truth["stimuli"], folder)
    assert not problem
    if name in REFUSED:
        assert REFUSED[name] in found and "00000.zip" in found
    if name in ("many entries", "packed"):
        assert found == "read"
    if name in ("folder", "gone"):
        assert "is not complete" in found


def test_a_training_says_it_in_one_line(folder, tmp_path):
    ARCHIVES["PNG bomb"](folder / "00000.zip", random.Random(0))
    config = str(ROOT / "configs/quick/pathfinder_hgru_crbp_instant_test.yaml")
    register_pathfinder(SPEC, NAME, root=str(folder.parents[1]), on_first_use=False)
    options = ("OUTPUT_DIR", tmp_path / "out", "DATASETS.TRAIN", f"('pathfinder_{NAME}_val',)", "DATASETS.TEST", "()",
               "SOLVER.MAX_ITER", 4, "DATALOADER.NUM_WORKERS", 0)  # fmt: skip
    try:
        with pytest.raises(SystemExit) as stopped:
            main(["--config-file", config, "--num-gpus", "0", *map(str, options)])
    finally:
        free(*(f"pathfinder_{NAME}_{split}" for split in ("train", "val", "stream")))
    assert "\n" not in str(stopped.value) and str(folder / "00000.zip") in str(stopped.value)


def test_a_target_of_other_values_is_named(folder):
    path = folder / "00000.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("000000.png", png(np.zeros((24, 24), np.uint8)))
        archive.writestr("000000_target.png", png(np.full((24, 24), 7, np.uint8)))
    with pytest.raises(ValueError, match=f"{path}.* 0 and 255"):
        read_stimulus(str(path), 0, (24, 24))


EDITS = [
    ("count", -1), ("count", 10**12), ("count", 4.0), ("count", True), ("seed", [0, -2]), ("seed", "0, 2"),
    ("spec", None), ("generator", [1]), ("files", []), ("files", {"00000.zip": 4}),
]  # fmt: skip


@pytest.mark.parametrize("key,value", EDITS)
def test_an_edited_manifest_is_named_with_the_key(folder, key, value):
    path = folder / MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    for use in (lambda: dict(stimuli_in(folder.parents[1])),
                lambda: write_split(folder, split_of(SPEC, "val", 0, STIMULI))):  # fmt: skip
        with pytest.raises(ValueError) as raised:
            use()
        message = str(raised.value)
        assert str(path) in message and key in message and "\n" not in message


def test_a_count_without_its_archives_is_not_complete(folder):
    path = folder / MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), "count": 10**8}))
    assert not is_complete(folder, split_of(SPEC, "val", 0, 10**8))
    with pytest.raises(ValueError, match=f"{folder} is not complete"):
        dict(stimuli_in(folder.parents[1]))


def test_the_soak_counts_its_trials_and_finds_what_is_raw(tmp_path, monkeypatch):
    record = Record(tmp_path / "results.jsonl")
    figures = soak_archives(5, 3, tmp_path, record)
    assert figures == {"archive": 5, "manifest": 1, "panoptic JSON": 1, "raw errors": 0, "first": []}

    def raw(path, *args):
        if "damaged" in path:
            raise KeyError("seed")
        return read_stimulus(path, *args)

    monkeypatch.setattr("crbp_d2.data.pathfinder.mapper.read_stimulus", raw)
    assert soak_archives(12, 3, tmp_path, record)["raw errors"] > 1
    assert any("raw KeyError" in row["problem"] for row in record.rows)


def test_bombs_are_what_they_claim_to_be():
    """Else their refusal would show nothing."""
    small = png(np.zeros((3, 4), np.uint8))
    assert huge_png(small, random.Random(0))[16:24] == (12_000).to_bytes(4, "big") * 2
    assert chunk(b"IHDR", small[16:29]) == small[8:33]
