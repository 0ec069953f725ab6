"""Runs that are stopped and resumed end as undisturbed ones, bit for bit; what faults of disk and data leave behind."""

import errno
import json
import os
import random
import shutil
import socket
import subprocess
import sys

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.events import get_event_storage
from helpers.paths import ROOT

from crbp_d2 import Trainer
from crbp_d2.engine.lock import RunLock
from crbp_d2.engine.run import main
from crbp_d2.recurrence import RULES
from tools.soak.small_runs import CONTRACTION, RUNS, difference, register_small_sets

SETS = ("pathfinder_soak_train", "pathfinder_soak_val", "pathfinder_soak_stream",
        "toy_panoptic_train", "toy_panoptic_val")  # fmt: skip
SHORT = ("SOLVER.MAX_ITER", 7, "SOLVER.CHECKPOINT_PERIOD", 2, "DATASETS.TEST", ())


@pytest.fixture(scope="module", autouse=True)
def small_sets(tmp_path_factory):
    def forget():
        for name in SETS:
            if name in DatasetCatalog.list():
                DatasetCatalog.remove(name)
                MetadataCatalog.remove(name)

    forget()
    root = tmp_path_factory.mktemp("datasets")
    register_small_sets(root)
    yield root
    forget()


class Stopped(Exception):
    """In place of a kill."""


def train(run, folder, *options, flags=(), stop_at=None, monkeypatch=None):
    """A run of seconds in this process, stopped within iteration `stop_at`."""
    arguments = [*RUNS[run].arguments(folder, *flags), *map(str, (*SHORT, *options))]
    if stop_at is None:
        return main(arguments)
    step = Trainer.run_step

    def stopped_step(self):
        step(self)
        if self.iter == stop_at:
            raise Stopped

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(Trainer, "run_step", stopped_step)
        # Faults write what is left of the scalars; a kill does not.
        patch.setattr(Trainer, "after_train", lambda self: None)
        main(arguments)
    return None


def stopped_and_resumed(run, tmp_path, monkeypatch, *options, resume_options=()):
    """What differs between an undisturbed run and one that is stopped twice."""
    train(run, tmp_path / "whole", *options)
    rng = random.Random(str((run, options)))
    for stop_at in sorted(rng.sample(range(1, 7), 2)):
        train(run, tmp_path / "parts", *options, flags=["--resume"], stop_at=stop_at, monkeypatch=monkeypatch)
        # What comes next must not depend on where the generators are.
        torch.manual_seed(stop_at)
        random.seed(stop_at)
    train(run, tmp_path / "parts", *options, *resume_options, flags=["--resume"])
    return difference(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("rule", sorted(RULES))
def test_every_rule_resumes_exactly(rule, tmp_path, monkeypatch):
    options = ("MODEL.RECURRENCE.RULE", rule, "DATALOADER.NUM_WORKERS", 0)
    assert not stopped_and_resumed("every_step", tmp_path, monkeypatch, *options)


@pytest.mark.parametrize(
    "options",
    [
        ("MODEL.RECURRENCE.RULE", "crbp", *CONTRACTION),
        ("DATASETS.TRAIN", "('pathfinder_soak_stream',)", "SOLVER.CLIP_GRADIENTS.ENABLED", True),
        ("SOLVER.OPTIMIZER", "SGD", "SOLVER.LR_SCHEDULER_NAME", "WarmupMultiStepLR", "SOLVER.STEPS", (3, 5)),
        ("TEST.EVAL_PERIOD", 2, "DATASETS.TEST", "('pathfinder_soak_val',)"),
        ("SOLVER.EMA.ENABLED", True, "SOLVER.EMA.DECAY", 0.7, "SOLVER.ACCUMULATE", 2),
    ],
)
def test_other_settings_resume_exactly(options, tmp_path, monkeypatch):
    assert not stopped_and_resumed("every_step", tmp_path, monkeypatch, "DATALOADER.NUM_WORKERS", 0, *options)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_panoptic_runs_resume_exactly_with_any_workers(workers, tmp_path, monkeypatch):
    """Resumed with other workers than the whole run had; running averages of batch norms are part of the state."""
    more = ("DATALOADER.NUM_WORKERS", workers)
    found = stopped_and_resumed("panoptic", tmp_path, monkeypatch, "INPUT.CROP.ENABLED", True, resume_options=more)
    assert not found


def test_precise_bn_resumes_exactly(tmp_path, monkeypatch):
    options = ("TEST.PRECISE_BN.ENABLED", True, "TEST.PRECISE_BN.NUM_ITER", 2, "TEST.EVAL_PERIOD", 2,
               "SOLVER.MAX_ITER", 5, "DATALOADER.NUM_WORKERS", 0)  # fmt: skip
    train("panoptic", tmp_path / "whole", *options)
    train("panoptic", tmp_path / "parts", *options, flags=["--resume"], stop_at=2, monkeypatch=monkeypatch)
    train("panoptic", tmp_path / "parts", *options, flags=["--resume"])
    assert not difference(tmp_path / "whole", tmp_path / "parts")


def test_without_a_seed_a_run_keeps_the_one_it_drew(tmp_path, monkeypatch):
    train("stream", tmp_path / "a", "SEED", -1, stop_at=3, monkeypatch=monkeypatch)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    for name in ("a", "b"):
        train("stream", tmp_path / name, "SEED", -1, flags=["--resume"])
    assert not difference(tmp_path / "a", tmp_path / "b")
    train("stream", tmp_path / "c", "SEED", -1)
    assert difference(tmp_path / "a", tmp_path / "c")


def test_a_finished_run_is_left_as_it_is(tmp_path, caplog):
    train("stream", tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    train("stream", tmp_path / "b", flags=["--resume"])
    assert not difference(tmp_path / "a", tmp_path / "b") and "SOLVER.MAX_ITER" in caplog.text
    # Killed before the last checkpoint got its final name.
    (tmp_path / "b/model_final.pth").unlink()
    train("stream", tmp_path / "b", "SOLVER.MAX_ITER", 6, flags=["--resume"])
    assert torch.load(tmp_path / "b/model_final.pth", weights_only=True)["iteration"] == 5


def test_metrics_continue_and_cut_lines_go(tmp_path, monkeypatch):
    options = ("SOLVER.MAX_ITER", 41, "SOLVER.CHECKPOINT_PERIOD", 20)
    train("stream", tmp_path / "whole", *options)
    train("stream", tmp_path / "parts", *options, stop_at=24, monkeypatch=monkeypatch)
    metrics = tmp_path / "parts/metrics.json"
    with metrics.open("a") as file:
        file.write('{"iteration": 23, "loss": 1}\n{"iteration": 24, "lo')
    train("stream", tmp_path / "parts", *options, flags=["--resume"])
    assert not difference(tmp_path / "whole", tmp_path / "parts")
    assert [json.loads(line)["iteration"] for line in metrics.open()] == [19, 39, 40]
    # Killed between a checkpoint and the line of its iteration.
    (tmp_path / "parts/model_final.pth").unlink()
    (tmp_path / "parts/model_0000039.pth").unlink()
    metrics.write_text("")
    train("stream", tmp_path / "parts", *options, flags=["--resume"])
    assert not difference(tmp_path / "whole", tmp_path / "parts")


def test_an_evaluation_that_a_kill_came_before_is_made_up_for(tmp_path, monkeypatch):
    options = ("SOLVER.MAX_ITER", 30, "SOLVER.CHECKPOINT_PERIOD", 10, "TEST.EVAL_PERIOD", 10, "DATALOADER.NUM_WORKERS",
               0, "DATASETS.TEST", "('pathfinder_soak_val',)")  # fmt: skip
    train("stream", tmp_path / "whole", *options)
    evaluations = []
    test = Trainer.test

    def counted(cls, cfg, model, evaluators=None):
        iteration = get_event_storage().iter
        evaluations.append(iteration)
        if evaluations == [9, 19]:
            # Killed after the checkpoint of this iteration.
            raise Stopped
        return test(cfg, model, evaluators)

    monkeypatch.setattr(Trainer, "test", classmethod(counted))
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(Trainer, "after_train", lambda self: None)
        train("stream", tmp_path / "parts", *options)
    train("stream", tmp_path / "parts", *options, flags=["--resume"])
    assert evaluations == [9, 19, 19, 30]
    assert not difference(tmp_path / "whole", tmp_path / "parts")


def test_the_best_checkpoint_is_that_of_an_undisturbed_run(tmp_path, monkeypatch):
    options = ("SOLVER.MAX_ITER", 13, "SOLVER.CHECKPOINT_PERIOD", 3, "TEST.EVAL_PERIOD", 3, "DATALOADER.NUM_WORKERS", 0,
               "DATASETS.TEST", "('pathfinder_soak_val',)", "TEST.BEST_METRIC", "pathfinder/F1")  # fmt: skip
    # Best at iteration 5, whose evaluation comes after the checkpoint of the same number.
    figures = {2: 0.5, 5: 0.9, 8: 0.6, 11: 0.7, 13: 0.1}
    monkeypatch.setattr(Trainer, "test", lambda *_: {"pathfinder": {"F1": figures[get_event_storage().iter]}})
    train("stream", tmp_path / "whole", *options)
    train("stream", tmp_path / "parts", *options, stop_at=6, monkeypatch=monkeypatch)
    train("stream", tmp_path / "parts", *options, flags=["--resume"])
    best = [torch.load(tmp_path / name / "model_best.pth", weights_only=True) for name in ("whole", "parts")]
    fifth = torch.load(tmp_path / "whole/model_0000005.pth", weights_only=True)["model"]
    for content in best:
        assert all(torch.equal(content["model"][name], value) for name, value in fifth.items())
    assert not difference(tmp_path / "whole", tmp_path / "parts")


def test_an_evaluation_that_was_written_is_not_repeated(tmp_path, monkeypatch):
    options = ("SOLVER.MAX_ITER", 30, "SOLVER.CHECKPOINT_PERIOD", 10, "TEST.EVAL_PERIOD", 10, "DATALOADER.NUM_WORKERS",
               0, "DATASETS.TEST", "('pathfinder_soak_val',)")  # fmt: skip
    train("stream", tmp_path, *options, stop_at=20, monkeypatch=monkeypatch)
    evaluations = []
    monkeypatch.setattr(Trainer, "test", lambda *_: evaluations.append(get_event_storage().iter))
    train("stream", tmp_path, *options, flags=["--resume"])
    assert evaluations == [30]


def test_a_run_that_begins_anew_sets_an_earlier_one_aside(tmp_path, monkeypatch):
    train("stream", tmp_path / "out")
    content = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.pth")}
    # Of another model, so that its checkpoints would not fit.
    other = ("MODEL.CONTOUR.CHANNELS", 3)
    train("stream", tmp_path / "out", *other, stop_at=3, monkeypatch=monkeypatch)
    aside = tmp_path / "out/earlier_run_1"
    assert {path.name: path.read_bytes() for path in aside.glob("*.pth")} == content
    assert (aside / "metrics.json").exists()
    train("stream", tmp_path / "out", *other, flags=["--resume"])
    train("stream", tmp_path / "whole", *other)
    assert not difference(tmp_path / "whole", tmp_path / "out")


def refusal(*arguments, **options):
    with pytest.raises(SystemExit) as stopped:
        train(*arguments, **options)
    assert stopped.value.code and "\n" not in str(stopped.value)
    return str(stopped.value)


def test_a_checkpoint_of_another_optimizer_or_model_stops_the_resume(tmp_path, monkeypatch):
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
        patch.setattr("crbp_d2.files.os.replace", full_from_the_second_checkpoint)
        message = refusal("stream", tmp_path / "parts")
    assert "model_0000003.pth" in message and "No space left" in message
    assert not list((tmp_path / "parts").glob("*.partial"))
    train("stream", tmp_path / "parts", flags=["--resume"])
    assert not difference(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device that is always full is one of Linux")
def test_metrics_on_a_full_disk_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr("crbp_d2.engine.hooks._whole_lines", lambda path: [])
    monkeypatch.setattr("crbp_d2.engine.hooks.write_text", lambda path, text: None)
    (tmp_path / "metrics.json").symlink_to("/dev/full")
    message = refusal("stream", tmp_path)
    assert "metrics.json" in message and "No space left" in message


def test_tensorboard_on_a_full_disk_is_named(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter.add_scalar", full)
    message = refusal("stream", tmp_path / "out")
    assert str(tmp_path / "out") in message and "No space left" in message


@pytest.mark.parametrize("workers", [0, 2])
def test_data_that_vanish_in_training_are_named_and_the_run_goes_on(tmp_path, monkeypatch, small_sets, workers):
    # More than the workers read ahead.
    options = ("DATALOADER.NUM_WORKERS", workers, "SOLVER.MAX_ITER", 10)
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
    assert str(images) in message
    images.with_name("gone").rename(images)
    train("panoptic", tmp_path / "parts", *options, flags=["--resume"])
    assert not difference(tmp_path / "whole", tmp_path / "parts")


def test_a_stale_lock_is_taken_over_with_a_line_in_the_log(tmp_path):
    (tmp_path / "run.lock").write_text('{"process": 4194399, "host": "elsewhere"}')
    train("stream", tmp_path)
    log = (tmp_path / "log.txt").read_text()
    assert "4194399" in log and "elsewhere" in log and not (tmp_path / "run.lock").read_text()


def test_a_folder_in_use_is_refused(tmp_path):
    with RunLock(str(tmp_path)):
        message = refusal("stream", tmp_path)
    assert str(os.getpid()) in message and socket.gethostname() in message
    assert [path.name for path in tmp_path.iterdir()] == ["run.lock"]


def test_an_output_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    assert "file" in refusal("stream", tmp_path / "file" / "out")


def test_training_without_test_sets_ends_well(tmp_path):
    train("stream", tmp_path)
    assert (tmp_path / "model_final.pth").exists() and not (tmp_path / "inference").exists()


@pytest.mark.slow
@pytest.mark.parametrize("subject,count,key", [("kills", 8, "differences"), ("checkpoints", 6, "lost runs")])
def test_soak(tmp_path, subject, count, key):
    """Real kills of real processes, a few of them."""
    command = [sys.executable, "-W", "ignore", "-m", "tools.soak", subject, "--count", str(count), "--seed", "5"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, "--output", tmp_path], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures[key] == 0 and max(figures.values(), key=lambda v: v if isinstance(v, int) else 0) >= count
