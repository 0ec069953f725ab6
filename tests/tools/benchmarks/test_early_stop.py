"""Early stop on a page: what is measured is what ran."""

import pytest
import torch
from torch import nn

from crbp_d2.cells import GalaHGRUCell
from crbp_d2.recurrence import learning_rule
from tools.benchmarks.early_stop import (
    EarlyStopCost,
    early_stop_table,
    measure_early_stop,
)


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.recurrence = learning_rule("crbp", GalaHGRUCell(8), steps=10)
        self.test_steps = 4

    def forward(self, x):
        return self.recurrence(x, steps=self.test_steps).state[0]


class Model(nn.Module):
    """One RoI for each channel-wise scale in an input; its output is the number of steps."""

    def __init__(self):
        super().__init__()
        self.roi_heads = nn.Module()
        self.roi_heads.mask_head = Head()

    def forward(self, inputs):
        self.roi_heads.mask_head(inputs[0]["rois"])
        return [self.roi_heads.mask_head.recurrence.last_stats.sample_steps]


class StepsAsQuality:
    """In the place of PanopticEvaluator."""

    def __init__(self, name):
        assert name == "scenes"

    def reset(self):
        self.seen = []

    def process(self, inputs, outputs):
        self.seen += [len(inputs), *outputs[0].tolist()]

    def evaluate(self):
        return {"panoptic_seg": {"PQ": sum(self.seen)}}


def test_every_image_runs_with_every_threshold(monkeypatch):
    monkeypatch.setattr("tools.benchmarks.early_stop.PanopticEvaluator", StepsAsQuality)
    torch.manual_seed(0)
    model = Model().train()
    head = model.roi_heads.mask_head
    solver = head.recurrence.solver
    # A clock that counts evaluations of the cell.
    ticks = []
    head.recurrence.cell.register_forward_pre_hook(lambda *call: ticks.append(call))
    monkeypatch.setattr("tools.benchmarks.early_stop._now", lambda: float(len(ticks)))
    loader = [[{"rois": torch.randn(count, 8, 7, 7)}] for count in (3, 0, 2)]
    rows = measure_early_stop(model, loader, "scenes", (0.01, 0.5), steps=20)
    assert [row.tol for row in rows] == [None, 0.01, 0.5]
    assert rows[0].steps == 20 and rows[0].fraction == 1 and 20 >= rows[1].steps > rows[2].steps > 1
    for row in rows:
        assert row.quality == pytest.approx(3 + 5 * row.steps)
        assert row.fraction == pytest.approx(row.seconds / 20)
    assert rows[0].seconds == 20 and rows[2].fraction < 0.7
    assert (head.test_steps, head.recurrence.solver, model.training) == (4, solver, True)
    assert not head._forward_hooks and not head._forward_pre_hooks


def test_tables_show_what_is_lost_and_the_ratio():
    rows = {10: [EarlyStopCost(None, 10, 0.02, 1, 50.0), EarlyStopCost(0.01, 4.25, 0.0101, 0.51, 49.96)]}
    first, second = early_stop_table(rows).rows
    assert first == [10, "none", "10.00", "20.0", "1.00", "50.00", "0.00"]
    assert second == [10, "0.01", "4.25", "10.1", "0.51", "49.96", "0.04"]
