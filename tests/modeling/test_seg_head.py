"""The recurrent semantic head: every rule and cell trains, resumes nothing it should not, and carries its state."""

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model
from helpers.paths import ROOT

from crbp_d2 import add_crbp_config
from crbp_d2.cells import CELLS, build_cell
from crbp_d2.modeling import RecurrentSemSegHead
from crbp_d2.recurrence import RULES, learning_rule

SHAPES = {"p2": ShapeSpec(channels=6, stride=4), "p3": ShapeSpec(channels=6, stride=8)}


def features(seed=0, batch=2):
    generator = torch.Generator().manual_seed(seed)
    return {"p2": torch.randn(batch, 6, 8, 12, generator=generator),
            "p3": torch.randn(batch, 6, 4, 6, generator=generator)}  # fmt: skip


def head_of(rule="crbp", cell="ConvGRUCell", seed=0, **settings):
    torch.manual_seed(seed)
    settings = {"steps": 3, "num_terms": 2, "truncation": 2, **settings}
    recurrence = learning_rule(rule, build_cell(cell, 4, kernel_size=3, norm="GN", timescale=3), **settings)
    return RecurrentSemSegHead(SHAPES, recurrence=recurrence, num_classes=5, conv_dims=8, norm="", ignore_value=255)


@pytest.mark.parametrize("rule", sorted(RULES))
@pytest.mark.parametrize("cell", sorted(CELLS))
def test_every_rule_and_cell_gives_losses_gradients_and_logits(rule, cell):
    head = head_of(rule, cell)
    targets = torch.randint(0, 5, (2, 32, 48))
    none, losses = head(features(), targets)
    assert none is None and set(losses) == {"loss_sem_seg", "loss_lipschitz_sem_seg"}
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.recurrence.cell.parameters())
    assert head.p2[0].weight.grad.abs().sum() > 0
    logits, nothing = head.eval()(features())
    assert logits.shape == (2, 5, 32, 48) and nothing == {}


def test_the_recurrence_runs_between_fusion_and_predictor():
    head = head_of().eval()
    x = features()
    fused = head.scale_heads[0](x["p2"]) + head.scale_heads[1](x["p3"])
    state = head.recurrence.cell.initial_state(drive := head.projection(fused))
    for _ in range(3):
        state = head.recurrence.cell(drive, state)
    logits = head.predictor(head.readout(state[0]))
    expected = torch.nn.functional.interpolate(logits, scale_factor=4, mode="bilinear", align_corners=False)
    torch.testing.assert_close(head(x)[0], expected)


def test_ignored_pixels_have_no_loss():
    head = head_of("bptt")
    targets = torch.full((2, 32, 48), 255)
    targets[0, :4] = 2
    changed = targets.clone()
    changed[0, :4] = 1
    with torch.no_grad():
        assert head(features(), targets)[1]["loss_sem_seg"] != head(features(), changed)[1]["loss_sem_seg"]


@torch.no_grad()
def test_a_carried_state_goes_on_where_the_last_picture_ended():
    head = head_of("rbp").eval()
    x = features()
    head.test_steps = 6
    expected = head(x)[0]
    head.test_steps = 3
    single = head(x)[0]
    with head.carry_state():
        first, second = head(x)[0], head(x)[0]
        smaller = head(features(batch=1))[0]
    torch.testing.assert_close(first, single)
    torch.testing.assert_close(second, expected)
    torch.testing.assert_close(smaller, head(features(batch=1))[0])
    torch.testing.assert_close(head(x)[0], single)


@torch.no_grad()
def test_a_carried_state_saves_steps_on_a_video():
    head = head_of("deq", tol=1e-3, max_steps=40).eval()
    start, drift = features(0, 1), features(1, 1)
    video = [{name: start[name] + 0.02 * k * drift[name] for name in start} for k in range(5)]

    def steps_of_frames():
        taken = []
        for frame in video:
            head(frame)
            stats = head.recurrence.last_stats
            assert stats.converged.all()
            taken.append(stats.steps)
        return taken

    cold = steps_of_frames()
    with head.carry_state():
        warm = steps_of_frames()
    assert warm[0] == cold[0]
    assert sum(warm[1:]) < 0.8 * sum(cold[1:])


def test_the_config_with_both_heads_has_separate_losses():
    cfg = get_cfg()
    add_crbp_config(cfg)
    cfg.merge_from_file(str(ROOT / "configs/quick/panoptic_R18_recurrent_toy.yaml"))
    cfg.MODEL.DEVICE = "cpu"
    model = build_model(cfg)
    assert type(model.sem_seg_head) is RecurrentSemSegHead
    assert model.sem_seg_head.recurrence is not model.roi_heads.mask_head.recurrence
    assert model.sem_seg_head.recurrence.cell.channels == 32
