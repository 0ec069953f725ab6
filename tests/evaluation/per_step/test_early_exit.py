"""Steps of an evaluation: counted over all its samples and processes."""

import logging
import math

import pytest
import torch
from detectron2.utils import comm
from helpers.problems import LinearCell
from torch import nn

from crbp_d2.evaluation import EarlyStopStatistics
from crbp_d2.recurrence import learning_rule


@pytest.fixture(autouse=True)
def propagating(monkeypatch):
    """A training in the same process takes the package's messages away from the root logger."""
    monkeypatch.setattr(logging.getLogger("crbp_d2"), "propagate", True)


def model_of(early_stop):
    """h' = h / 2 + z and h' = z: residuals 1, 1/3, 1/7, ... and 1, 0."""
    cell = LinearCell(torch.diag(torch.tensor([0.5, 0.0], dtype=torch.float64)))
    return nn.ModuleDict({"head": learning_rule("rbp", cell, steps=8, early_stop=early_stop)}).eval()


SLOW, FAST = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)


def evaluate(model, *batches):
    statistics = EarlyStopStatistics(model)
    for batch in batches:
        with torch.no_grad():
            model["head"](batch)
        statistics.process([], [])
    return statistics


def test_mean_over_all_samples_is_logged_once(caplog):
    # The fourth residual of the slow samples is 1/15.
    statistics = evaluate(model_of(0.1), torch.stack([SLOW, FAST, FAST]), torch.zeros_like(SLOW[None])[:0], SLOW[None])
    with caplog.at_level(logging.INFO):
        assert statistics.evaluate() == {"recurrence": {"mean_steps": (4 + 2 + 2 + 4) / 4}}
    (message,) = caplog.messages
    assert all(part in message for part in ("0.1", "3.00 steps", "4 samples", "4 of them"))
    statistics.reset()
    assert math.isnan(statistics.evaluate()["recurrence"]["mean_steps"])


def test_unconverged_samples_are_counted(caplog):
    with caplog.at_level(logging.INFO):
        evaluate(model_of(1e-6), torch.stack([SLOW, FAST])).evaluate()
    assert all(part in caplog.messages[0] for part in ("5.00 steps", "2 samples", "1 of them"))


def test_processes_are_gathered(monkeypatch):
    one = evaluate(model_of(0.1), SLOW[None])
    monkeypatch.setattr(comm, "gather", lambda mine: [mine, (3, 6, 3)])
    assert one.evaluate()["recurrence"]["mean_steps"] == pytest.approx((4 + 6) / 4)
    monkeypatch.setattr(comm, "is_main_process", lambda: False)
    assert one.evaluate() is None


def test_without_early_exit_nothing_is_logged(caplog):
    with caplog.at_level(logging.INFO):
        assert evaluate(model_of(None), SLOW[None]).evaluate() == {}
    assert not caplog.messages
