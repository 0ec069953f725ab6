"""Steps until a prediction settles, against running the model anew for each number of steps."""

import contextlib

import numpy as np
import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.structures import Boxes, Instances

from crbp_d2.cells import ConvGRUCell
from crbp_d2.evaluation import record_states
from crbp_d2.evaluation.per_step.settling import (
    SettlingStatistics,
    image_map,
    recorded_settling,
    settling_steps,
    unpadded,
)
from crbp_d2.modeling import ContourSegHead, RecurrentMaskHead
from crbp_d2.recurrence import learning_rule

STEPS = 6


def test_a_label_settles_after_its_last_change():
    labels = torch.tensor([[0, 0, 1, 5], [0, 1, 1, 0], [0, 1, 0, 5], [0, 1, 1, 5]])
    assert settling_steps(labels).tolist() == [1, 2, 4, 3]


def rule(channels):
    torch.manual_seed(3)
    cell = ConvGRUCell(channels, 3)
    for parameter in cell.parameters():
        torch.nn.init.normal_(parameter, std=0.6)
    return learning_rule("rbp", cell, steps=STEPS, num_terms=2)


def by_brute_force(predict):
    """predict(t): labels; the first step from which on they are those of the last."""
    labels = [predict(t) for t in range(1, STEPS + 1)]
    settled = torch.full(labels[0].shape, STEPS)
    for t in range(STEPS, 0, -1):
        same = torch.stack([labels[u - 1] == labels[-1] for u in range(t, STEPS + 1)]).all(dim=0)
        settled[same] = t
    return settled


@torch.no_grad()
def test_a_contour_head_settles_pixel_by_pixel():
    head = ContourSegHead({"stem": ShapeSpec(channels=4, stride=1)}, recurrence=rule(4), prior_prob=0.5).eval()
    torch.nn.init.normal_(head.predictor.weight)
    features = {"stem": torch.randn(2, 4, 8, 9)}
    expected = by_brute_force(
        lambda t: head.read_out(head.recurrence(features["stem"], steps=t).state[0]).argmax(dim=1)
    )
    statistics = SettlingStatistics(head)
    statistics.reset()
    head(features)
    statistics.process([{"image": torch.zeros(1, 8, 9)}] * 2, [{}, {}])
    with recorded_settling(head) as maps:
        head(features)
    assert torch.equal(maps[0], expected) and len(expected.unique()) > 2
    figures = statistics.evaluate()["settling"]
    assert figures == {"mean_steps": pytest.approx(expected.float().mean().item()), "max_steps": expected.max().item()}
    head(features)
    assert len(maps) == 1


@torch.no_grad()
def test_a_mask_head_settles_roi_by_roi():
    head = RecurrentMaskHead(ShapeSpec(channels=4, height=5, width=5), recurrence=rule(4), num_classes=3, conv_dim=4)
    torch.nn.init.normal_(head.eval().predictor.weight)
    x, classes = torch.randn(3, 4, 5, 5), torch.tensor([2, 0, 1])
    instances = [
        Instances((20, 20), pred_boxes=Boxes(torch.tensor([[0.0, 0, 9, 9]] * n)), pred_classes=part)
        for n, part in ((1, classes[:1]), (2, classes[1:]))
    ]

    def inside(t):
        return head.read_out(head.recurrence(x, steps=t).state[0])[torch.arange(3), classes] > 0

    expected = by_brute_force(inside)
    with recorded_settling(head):
        first, second = head(x, instances)
    assert torch.equal(torch.cat([first.settling, second.settling]), expected) and len(expected.unique()) > 2


def test_padding_is_left_out():
    readout = torch.arange(64).view(8, 8)
    assert torch.equal(unpadded(readout, (32, 20), (32, 20)), readout[:, :5])
    assert torch.equal(unpadded(readout, (7, 8), (7, 8)), readout[:7])
    # A small image in the batch of a large one.
    assert torch.equal(unpadded(readout, (8, 6), (30, 32)), readout[:2, :2])


def test_each_image_of_a_batch_counts_by_its_own_size():
    statistics = SettlingStatistics(torch.nn.Identity())
    statistics.reset()
    large, small = torch.full((8, 8), 2), torch.full((8, 8), 50)
    small[:2, :4] = 3
    statistics._maps.append(torch.stack([large, small]))
    statistics.process([{"image": torch.zeros(3, 32, 32)}, {"image": torch.zeros(3, 8, 16)}], [{}, {}])
    assert statistics.evaluate()["settling"] == {"mean_steps": (2 * 64 + 3 * 8) / 72, "max_steps": 3}


@torch.no_grad()
def test_settling_is_of_the_models_own_steps():
    """Also where more are run, and whichever context was opened first."""
    head = ContourSegHead({"stem": ShapeSpec(channels=4, stride=1)}, recurrence=rule(4), prior_prob=0.5).eval()
    torch.nn.init.normal_(head.predictor.weight)
    features = {"stem": torch.randn(2, 4, 8, 9)}
    with recorded_settling(head) as plain:
        head(features)
    for contexts in (
        lambda: (recorded_settling(head), record_states(head.recurrence, (2, 30))),
        lambda: (record_states(head.recurrence, (2, 30)), recorded_settling(head)),
    ):
        with contextlib.ExitStack() as stack:
            first, second = (stack.enter_context(context) for context in contexts())
            head(features)
        maps = first if isinstance(first, list) else second
        assert torch.equal(maps[0], plain[0]) and plain[0].max() > 2


def test_rois_settle_with_their_last_pixel():
    settling = torch.tensor([[[1, 4], [1, 1]], [[2, 2], [2, 2]]])
    boxes = Boxes(torch.tensor([[0.0, 0, 4, 4], [2, 0, 6, 4]]))
    instances = Instances((4, 8), pred_boxes=boxes, settling=settling)
    statistics = SettlingStatistics(torch.nn.Identity())
    statistics.reset()
    statistics.process([{}], [{"instances": instances}])
    assert statistics.evaluate()["settling"] == {"mean_steps": 3, "max_steps": 4}
    nan = float("nan")
    expected = [[1, 1, 4, 4, 2, 2, nan, nan]] * 2 + [[1, 1, 2, 2, 2, 2, nan, nan]] * 2
    np.testing.assert_array_equal(image_map({"instances": instances}, [], (4, 8)), expected)
