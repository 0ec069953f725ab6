"""Checkpoints that are damaged, foreign or malicious; atomic writes; weights that do not fit."""

import errno
import os
import pickle
import random

import numpy as np
import pytest
import torch
from torch import nn

from crbp_d2.checkpoint.loading import LAST, Checkpointer
from crbp_d2.checkpoint.reading import UnusableCheckpoint, load_pickle, load_tensors
from crbp_d2.utils.files import write_atomically, write_text


class Training:
    """State of a training that a checkpointer keeps."""

    def __init__(self):
        self.state = {}

    def state_dict(self):
        return self.state

    def load_state_dict(self, state):
        self.state = state


def model(width=3):
    return nn.Sequential(nn.Linear(2, width), nn.Linear(width, 1))


@pytest.fixture
def run(tmp_path):
    """A folder with checkpoints of iterations 1, 3 and 5, whose weights are the iteration."""
    checkpointer = Checkpointer(model(), str(tmp_path), trainer=Training())
    for iteration in (1, 3, 5):
        nn.init.constant_(checkpointer.model[0].weight, iteration)
        checkpointer.checkpointables["trainer"].state = {"iteration": iteration}
        checkpointer.save(f"model_{iteration:07d}", iteration=iteration)
    return tmp_path


def resumed(folder, width=3):
    checkpointer = Checkpointer(model(width), str(folder), trainer=Training())
    checkpointer.resume_or_load("", resume=True)
    found = checkpointer.checkpointables["trainer"].state.get("iteration", 0)
    assert not found or checkpointer.model[0].weight.eq(found).all()
    return found


class RunsCode:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def corrupt_data(path):
    content = bytearray(path.read_bytes())
    place = content.index(np.float32(5).tobytes() * 6)
    content[place] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: path.write_bytes(b""),
    "garbage": lambda path: path.write_bytes(random.Random(0).randbytes(500)),
    "one bit of a weight": corrupt_data,
    "code": lambda path: torch.save(RunsCode(path.parent / "ran"), path),
    "a list": lambda path: torch.save([1, 2], path),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_resume_takes_the_newest_that_loads_and_names_others(run, damage, caplog):
    newest = run / "model_0000005.pth"
    DAMAGES[damage](newest)
    assert resumed(run) == 3
    if damage not in ("a list", "a folder"):
        assert str(newest) in caplog.text
    assert not (run / "ran").exists()


@pytest.mark.parametrize(
    "content", [None, b"", b"\xff\xfe\x00", b"model_9999999.pth", b"evil.pkl", b"../../etc/passwd"]
)
def test_a_damaged_last_checkpoint_does_not_matter(run, content):
    (run / "evil.pkl").write_bytes(pickle.dumps(RunsCode(run / "ran")))
    (run / LAST).unlink()
    if content is not None:
        (run / LAST).write_bytes(content)
    assert resumed(run) == 5
    assert not (run / "ran").exists()


def test_a_checkpoint_of_another_model_is_named_with_keys(run, caplog):
    torch.save({"model": model(4).state_dict(), "trainer": {}, "iteration": 7}, run / "model_0000007.pth")
    assert resumed(run) == 5
    assert "model_0000007.pth" in caplog.text and "0.weight is (4, 2) in the file, (3, 2) in the model" in caplog.text
    with pytest.raises(UnusableCheckpoint, match=r"model_0000005.pth .*: 0.weight"):
        resumed(run, width=9)


def test_weights_that_are_not_finite_are_left_aside(run, caplog):
    state = model().state_dict()
    state["1.bias"][0] = float("inf")
    torch.save({"model": state, "trainer": {"iteration": 7}, "iteration": 7}, run / "model_0000007.pth")
    assert resumed(run) == 5
    assert "model_0000007.pth" in caplog.text and "1.bias" in caplog.text


@pytest.mark.parametrize("content", [{"state_dict": model().state_dict()}, {"model": {"a": {"b": 1}}}])
def test_weights_in_another_layout_are_named(tmp_path, content):
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(UnusableCheckpoint, match=r"weights\.pth .*(state_dict|'a')"):
        Checkpointer(model()).load(str(tmp_path / "weights.pth"))


def test_nothing_whole_stops_the_run_with_every_file_named(run):
    for path in run.glob("*.pth"):
        path.write_bytes(b"")
    with pytest.raises(UnusableCheckpoint) as raised:
        resumed(run)
    assert all(f"model_000000{k}.pth is empty" in str(raised.value) for k in (1, 3, 5))


def test_weights_beside_the_checkpoints_are_none(tmp_path):
    torch.save({"model": model().state_dict()}, tmp_path / "pretrained.pth")
    assert not Checkpointer(model(), str(tmp_path)).has_checkpoint()
    assert resumed(tmp_path) == 0


def test_weights_that_fit_nothing_stop_and_others_load(tmp_path):
    path = str(tmp_path / "weights.pth")
    torch.save({"model": {"other.weight": torch.ones(2), "0.weight": torch.ones(7, 7)}}, path)
    with pytest.raises(UnusableCheckpoint, match=r"weights.pth .*: 0.weight is \(7, 7\)"):
        Checkpointer(model()).load(path)
    torch.save({"model": {"0.bias": torch.full((3,), 2.0)}}, path)
    loaded = model()
    Checkpointer(loaded).load(path)
    assert loaded[0].bias.eq(2).all()
    with pytest.raises(UnusableCheckpoint, match="0.weight is missing in the file"):
        Checkpointer(model(), complete=True).load(path)


def test_a_checkpointer_can_be_used_again_after_an_error(tmp_path):
    checkpointer = Checkpointer(model())
    (tmp_path / "bad.pth").write_bytes(b"bad")
    with pytest.raises(UnusableCheckpoint):
        checkpointer.load(str(tmp_path / "bad.pth"))
    torch.save(model().state_dict(), tmp_path / "good.pth")
    checkpointer.load(str(tmp_path / "good.pth"))


def test_pickles_of_arrays_load_and_others_do_not(tmp_path):
    arrays = {"0.weight": np.full((3, 2), 4, np.float32), "0.bias": np.float32([1, 2, 3])}
    path = tmp_path / "zoo.pkl"
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "zoo"}, protocol=2))
    loaded = model()
    Checkpointer(loaded).load(str(path))
    assert loaded[0].weight.eq(4).all() and loaded[0].bias.tolist() == [1, 2, 3]
    path.write_bytes(pickle.dumps({"model": {"0.weight": RunsCode(tmp_path / "ran")}}))
    with pytest.raises(UnusableCheckpoint, match="mkdir"):
        Checkpointer(model()).load(str(path))
    assert not (tmp_path / "ran").exists()
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(UnusableCheckpoint, match="zoo.pkl"):
        load_pickle(str(path))


@pytest.mark.parametrize("name", ["evil.pth", "evil.pyth", "evil.pkl", "evil"])
def test_no_name_makes_a_file_run_code(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(pickle.dumps({"model": RunsCode(tmp_path / "ran")}, protocol=2))
    with pytest.raises(UnusableCheckpoint, match=name):
        Checkpointer(model()).load(str(path))
    assert not (tmp_path / "ran").exists()


def test_random_damage_is_seen_or_harmless(run):
    """A damaged file is refused, or gives exactly what was saved."""
    rng = random.Random(4)
    path = run / "model_0000005.pth"
    whole, saved = path.read_bytes(), load_tensors(str(path))
    refused = 0
    for _ in range(60):
        content = bytearray(whole)
        content[rng.randrange(len(content))] ^= rng.randint(1, 255)
        path.write_bytes(content)
        try:
            loaded = load_tensors(str(path))
        except UnusableCheckpoint as error:
            refused += 1
            assert str(path) in str(error) and "\n" not in str(error)
        else:
            assert loaded["iteration"] == 5
            assert all(torch.equal(loaded["model"][key], value) for key, value in saved["model"].items())
    assert refused > 10


@pytest.mark.parametrize("at", ["write", "fsync", "replace"])
def test_a_full_disk_leaves_the_older_files(run, monkeypatch, at):
    before = {path.name: path.read_bytes() for path in run.iterdir()}

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    if at == "write":
        monkeypatch.setattr("crbp_d2.utils.files._Recorder.write", full)
    else:
        monkeypatch.setattr(f"crbp_d2.utils.files.os.{at}", full)
    checkpointer = Checkpointer(model(), str(run), trainer=Training())
    with pytest.raises(OSError) as raised:
        checkpointer.save("model_0000007", iteration=7)
    assert raised.value.errno == errno.ENOSPC and raised.value.filename == str(run / "model_0000007.pth")
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before
    monkeypatch.undo()
    assert resumed(run) == 5


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device that is always full is one of Linux")
def test_a_real_full_device_is_reported_by_name(tmp_path):
    (tmp_path / "model_0000001.pth.partial").symlink_to("/dev/full")
    checkpointer = Checkpointer(model(), str(tmp_path), trainer=Training())
    with pytest.raises(OSError, match=r"No space left.*model_0000001\.pth'"):
        checkpointer.save("model_0000001", iteration=1)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_none_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file/x.txt"):
        write_text(tmp_path / "file" / "x.txt", "text")


def test_what_a_writer_raises_itself_comes_through(tmp_path):
    def write(file):
        file.write(b"half")
        raise ValueError("no more")

    write_text(tmp_path / "x", "old")
    with pytest.raises(ValueError, match="no more"):
        write_atomically(tmp_path / "x", write)
    assert (tmp_path / "x").read_text() == "old" and len(list(tmp_path.iterdir())) == 1
