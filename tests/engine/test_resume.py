"""Runs that are stopped and resumed end as undisturbed ones, bit for bit."""

import json
import shutil

import pytest
import torch
from detectron2.utils.events import get_event_storage
from helpers import forked
from helpers.stopped_runs import Stopped, stopped_and_resumed, train
from torch import nn

from crbp_d2 import Trainer
from crbp_d2.engine.seeding import seed_draws
from crbp_d2.recurrence import RULES, RandomSteps
from tools.soak.small_runs import CONTRACTION, difference

pytestmark = pytest.mark.usefixtures("small_sets")


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


CROPPED = ("INPUT.CROP.ENABLED", True)


@pytest.fixture(scope="module")
def whole_panoptic_run(small_sets, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    train("panoptic", folder / "run", *CROPPED)
    return folder / "run"


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_panoptic_runs_resume_exactly_with_any_workers(workers, whole_panoptic_run, tmp_path, monkeypatch):
    """Resumed with other workers than the whole run had; running averages of batch norms are part of the state."""
    more = ("DATALOADER.NUM_WORKERS", workers)
    whole = whole_panoptic_run
    assert not stopped_and_resumed("panoptic", tmp_path, monkeypatch, *CROPPED, resume_options=more, whole=whole)


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


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_a_resumed_run_takes_rate_and_decay_of_its_config(tmp_path, caplog, name):
    options = ("SOLVER.OPTIMIZER", name, "SOLVER.LR_SCHEDULER_NAME", "WarmupMultiStepLR", "SOLVER.STEPS", "(4,)",
               "SOLVER.GAMMA", 0.5, "SOLVER.WARMUP_ITERS", 0)  # fmt: skip
    train("stream", tmp_path, *options, "SOLVER.BASE_LR", 0.01, "SOLVER.MAX_ITER", 3)
    new = ("SOLVER.BASE_LR", 0.004, "SOLVER.WEIGHT_DECAY", 0.25, "SOLVER.MOMENTUM", 0.5)
    train("stream", tmp_path, *options, *new, "SOLVER.MAX_ITER", 6, flags=["--resume"])
    state = torch.load(tmp_path / "model_final.pth", weights_only=True)["trainer"]["_trainer"]["optimizer"]
    group = state["param_groups"][0]
    assert (group["initial_lr"], group["lr"], group["weight_decay"]) == pytest.approx((0.004, 0.002, 0.25))
    assert "SOLVER.BASE_LR is 0.004, in the checkpoint 0.01" in caplog.text and "WEIGHT_DECAY is 0.25" in caplog.text
    assert group.get("momentum", 0.5) == 0.5 and ("MOMENTUM is 0.5, in the checkpoint 0.9" in caplog.text) == (
        name == "SGD"
    )


def test_draws_depend_on_seed_and_place():
    sequences = set()
    for seed in (1, 2):
        model = nn.ModuleList([RandomSteps(1, 100), nn.ModuleDict({"head": RandomSteps(1, 100)})])
        for _ in range(2):
            seed_draws(model, seed)
            for solver in (model[0], model[1]["head"]):
                solver.draws.zero_()
                sequences.add(tuple(solver.next_steps() for _ in range(20)))
    assert len(sequences) == 4


def test_a_resumed_run_keeps_the_seed_of_its_draws(tmp_path, monkeypatch):
    options = ("MODEL.RECURRENCE.RULE", "progressive", "MODEL.RECURRENCE.STEPS", 12)
    train("stream", tmp_path / "whole", *options, "SEED", 5)
    train("stream", tmp_path / "parts", *options, "SEED", 5, stop_at=4, monkeypatch=monkeypatch)
    train("stream", tmp_path / "parts", *options, "SEED", 6, flags=["--resume"])
    assert not difference(tmp_path / "whole", tmp_path / "parts")


def test_an_evaluation_leaves_the_config_of_the_run(tmp_path):
    train("stream", tmp_path)
    before = (tmp_path / "config.yaml").read_bytes()
    options = ("MODEL.RECURRENCE.TEST_STEPS", 2, "DATASETS.TEST", "('pathfinder_soak_val',)")
    train("stream", tmp_path, *options, flags=["--eval-only", "--resume"])
    assert (tmp_path / "config.yaml").read_bytes() == before
    assert (tmp_path / "inference/pathfinder_soak_val/results.json").exists()


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
    assert [json.loads(line)["iteration"] for line in metrics.read_text().splitlines()] == [19, 39, 40]
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


def test_training_without_test_sets_ends_well(tmp_path):
    train("stream", tmp_path)
    assert (tmp_path / "model_final.pth").exists() and not (tmp_path / "inference").exists()


@pytest.mark.slow
@pytest.mark.parametrize("subject,count,key", [("kills", 8, "differences"), ("checkpoints", 6, "lost runs")])
def test_soak(tmp_path, subject, count, key):
    """Real kills of real processes, a few of them."""
    arguments = [subject, "--count", count, "--seed", 5, "--output", tmp_path]
    log = tmp_path / "log"
    status = forked.run("tools.soak", arguments, log, environment={"OMP_NUM_THREADS": "1"})
    assert status == 0, log.read_text()
    figures = json.loads(log.read_text().splitlines()[-1])
    assert figures[key] == 0 and max(figures.values(), key=lambda v: v if isinstance(v, int) else 0) >= count
