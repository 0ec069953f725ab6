"""Faults of weights, disk, data and folders: one line that names them, and a run that resumes."""

import errno
import os
import socket

import pytest
import torch
from helpers.stopped_runs import refusal, train

from crbp_d2 import Trainer
from crbp_d2.engine.lock import RunLock
from tools.soak.small_runs import difference

pytestmark = pytest.mark.usefixtures("small_sets")


def test_a_checkpoint_of_another_model_stops_the_resume(tmp_path, monkeypatch):
    train("stream", tmp_path, stop_at=3, monkeypatch=monkeypatch)
    assert "SOLVER.OPTIMIZER" in refusal("stream", tmp_path, "SOLVER.OPTIMIZER", "SGD", flags=["--resume"])
    message = refusal("stream", tmp_path, "MODEL.CONTOUR.CHANNELS", 3, flags=["--resume"])
    assert "model_0000001.pth" in message and "backbone.conv.weight" in message


def test_weights_of_another_model_stop_training_and_evaluation(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"model": {"other.weight": torch.ones(3)}}, path)
    for flags in ((), ("--eval-only",)):
        options = ("MODEL.WEIGHTS", path, "DATASETS.TEST", "('pathfinder_soak_val',)")
        message = refusal("stream", tmp_path / "out", *options, flags=flags)
        assert str(path) in message and "other.weight" in message
    path.write_bytes(path.read_bytes()[:100])
    assert str(path) in refusal("stream", tmp_path / "out", "MODEL.WEIGHTS", path)


def test_a_full_disk_in_training_loses_nothing(tmp_path, monkeypatch):
    train("stream", tmp_path / "whole")
    replace = os.replace

    def full_from_the_second_checkpoint(source, target):
        if str(target).endswith(("model_0000003.pth", "metrics.json")):
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("crbp_d2.utils.files.os.replace", full_from_the_second_checkpoint)
        message = refusal("stream", tmp_path / "parts")
    assert "model_0000003.pth" in message and "No space left" in message
    assert not list((tmp_path / "parts").glob("*.partial"))
    # One line, in the log too.
    assert "Traceback" not in (tmp_path / "parts/log.txt").read_text()
    train("stream", tmp_path / "parts", flags=["--resume"])
    assert not difference(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device that is always full is one of Linux")
def test_metrics_on_a_full_disk_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr("crbp_d2.engine.resume._intact_lines", lambda path: [])
    monkeypatch.setattr("crbp_d2.engine.resume.write_text", lambda path, text: None)
    (tmp_path / "metrics.json").symlink_to("/dev/full")
    message = refusal("stream", tmp_path)
    assert "metrics.json" in message and "No space left" in message


def test_tensorboard_on_a_full_disk_is_named(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter.add_scalar", full)
    message = refusal("stream", tmp_path / "out")
    assert str(tmp_path / "out") in message and "No space left" in message


# More iterations than the workers read ahead.
@pytest.mark.parametrize("workers,iterations", [(0, 5), (2, 10)])
def test_missing_data_in_training_are_named_and_it_resumes(tmp_path, monkeypatch, small_sets, workers, iterations):
    options = ("DATALOADER.NUM_WORKERS", workers, "SOLVER.MAX_ITER", iterations)
    train("panoptic", tmp_path / "whole", *options)
    images = next(small_sets.glob("toy_panoptic/train*")) / "images"
    step = Trainer.run_step

    def vanishing(self):
        if self.iter == 3:
            images.rename(images.with_name("gone"))
        step(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "run_step", vanishing)
        message = refusal("panoptic", tmp_path / "parts", *options)
    assert str(images) in message and "Traceback" not in (tmp_path / "parts/log.txt").read_text()
    images.with_name("gone").rename(images)
    train("panoptic", tmp_path / "parts", *options, flags=["--resume"])
    assert not difference(tmp_path / "whole", tmp_path / "parts")


def test_a_stale_lock_is_taken_over_with_a_line_in_the_log(tmp_path):
    (tmp_path / "run.lock").write_text("process 4194399 on host elsewhere")
    train("stream", tmp_path)
    log = (tmp_path / "log.txt").read_text()
    assert "process 4194399 on host elsewhere" in log and not (tmp_path / "run.lock").read_text()


def test_a_folder_in_use_is_refused(tmp_path):
    with RunLock(str(tmp_path)):
        message = refusal("stream", tmp_path)
    assert str(os.getpid()) in message and socket.gethostname() in message
    assert [path.name for path in tmp_path.iterdir()] == ["run.lock"]


def test_an_output_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    assert "file" in refusal("stream", tmp_path / "file" / "out")
    message = refusal("stream", tmp_path / "file")
    assert "OUTPUT_DIR" in message and str(tmp_path / "file") in message


@pytest.mark.parametrize(
    "key,value,name",
    [
        ("TEST.BEST_METRIC", "pathfinder/f1", "pathfinder/f1"),
        ("TEST.EXPECTED_RESULTS", "[['pathfinder', 'f1', 5.0, 1.0]]", "pathfinder/f1"),
        ("TEST.EXPECTED_RESULTS", "[['bbox', 'AP', 5.0, 1.0]]", "bbox/AP"),
    ],
)
def test_an_unknown_metric_is_named_after_the_first_evaluation(tmp_path, key, value, name):
    options = (key, value, "TEST.EVAL_PERIOD", 2, "DATASETS.TEST", "('pathfinder_soak_val',)")
    message = refusal("stream", tmp_path, *options)
    assert key in message and name in message and "pathfinder/F1" in message
    # The checkpoint of that iteration is there.
    assert (tmp_path / "model_0000001.pth").exists() and not (tmp_path / "model_0000003.pth").exists()
