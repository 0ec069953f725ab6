"""Runs of seconds in this process, stopped and resumed."""

import random

import pytest
import torch

from crbp_d2 import Trainer
from crbp_d2.engine.run import main
from tools.soak.small_runs import RUNS, difference

SHORT = ("SOLVER.MAX_ITER", 7, "SOLVER.CHECKPOINT_PERIOD", 2, "DATASETS.TEST", ())


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


def stopped_and_resumed(run, tmp_path, monkeypatch, *options, resume_options=(), whole=None):
    """Differences between an uninterrupted run and one that is stopped twice.

    whole: folder of the undisturbed run; it is made where this is None.
    """
    if whole is None:
        whole = tmp_path / "whole"
        train(run, whole, *options)
    rng = random.Random(str((run, options)))
    for stop_at in sorted(rng.sample(range(1, 7), 2)):
        train(run, tmp_path / "parts", *options, flags=["--resume"], stop_at=stop_at, monkeypatch=monkeypatch)
        # What comes next must not depend on where the generators are.
        torch.manual_seed(stop_at)
        random.seed(stop_at)
    train(run, tmp_path / "parts", *options, *resume_options, flags=["--resume"])
    return difference(whole, tmp_path / "parts")


def refusal(*arguments, **options):
    with pytest.raises(SystemExit) as stopped:
        train(*arguments, **options)
    assert stopped.value.code and "\n" not in str(stopped.value)
    return str(stopped.value)
