"""The recurrent mask head inside and outside a detectron2 model."""

import warnings

import pytest
import torch
from detectron2 import model_zoo
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model
from detectron2.modeling.roi_heads.mask_head import build_mask_head, mask_rcnn_loss
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage
from helpers.paths import ROOT
from torch.nn import functional as F

from crbp_d2 import add_crbp_config
from crbp_d2.cells import ConvLSTMCell, GalaHGRUCell
from crbp_d2.modeling import RecurrentMaskHead, RecurrentPanopticFPN
from crbp_d2.recurrence import RULES, Broyden, FixedSteps, UnconvergedWarning, learning_rule

CLASSES = 3


def make_head(rule="crbp", in_channels=8, channels=8, **kwargs):
    torch.manual_seed(0)
    recurrence = learning_rule(rule, GalaHGRUCell(channels), steps=3, bound=0.0)
    return RecurrentMaskHead(
        ShapeSpec(channels=in_channels), recurrence=recurrence, num_classes=CLASSES, conv_dim=8, **kwargs
    )


def make_instances(count, size=32):
    instances = Instances((size, size))
    instances.proposal_boxes = Boxes(torch.tensor([[2.0, 2.0, 20.0, 24.0]]).repeat(count, 1))
    instances.gt_classes = torch.arange(count) % CLASSES
    masks = torch.zeros(count, size, size, dtype=torch.bool)
    masks[:, 5:15, 5:15] = True
    instances.gt_masks = BitMasks(masks)
    return instances


@pytest.mark.parametrize("count", [5, 1, 0])
@pytest.mark.parametrize("rule", RULES)
def test_losses_have_the_same_keys_and_reach_every_parameter(rule, count):
    head = make_head(rule)
    with EventStorage():
        losses = head(torch.randn(count, 8, 14, 14), [make_instances(count)])
        assert set(losses) == {"loss_mask", "loss_lipschitz"}
        sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert count == 0 or parameter.grad.any(), name
    assert all(buffer.isfinite().all() for buffer in head.buffers())


def test_losses_are_the_mask_loss_and_the_weighted_penalty():
    head = make_head(penalty_weight=0.25, loss_weight=2.0)
    x = torch.randn(4, 8, 14, 14)
    instances = make_instances(4)
    with EventStorage():
        losses = head(x, [instances])
    output = head.recurrence(x)
    logits = head.read_out(output.state[0])[torch.arange(4), instances.gt_classes]
    target = instances.gt_masks.crop_and_resize(instances.proposal_boxes.tensor, 28).float()
    truth = 2.0 * F.binary_cross_entropy_with_logits(logits, target)
    torch.testing.assert_close(losses["loss_mask"], truth, rtol=1e-5, atol=0)
    assert output.penalty > 0
    torch.testing.assert_close(losses["loss_lipschitz"], 0.25 * output.penalty, rtol=1e-5, atol=0)


def test_supervision_of_every_step_is_the_mean_of_the_losses():
    head = make_head("bptt_every_step")
    x = torch.randn(4, 8, 14, 14)
    with EventStorage():
        loss = head(x, [make_instances(4)])["loss_mask"]
        state, losses = head.recurrence.cell.initial_state(x), []
        for _ in range(3):
            state = head.recurrence.cell(x, state)
            losses.append(mask_rcnn_loss(head.read_out(state[0]), [make_instances(4)]))
    torch.testing.assert_close(loss, sum(losses) / 3, rtol=1e-5, atol=0)
    wanted = list(head.recurrence.cell.parameters())
    ours, truth = torch.autograd.grad(loss, wanted), torch.autograd.grad(sum(losses) / 3, wanted)
    for a, b in zip(ours, truth, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-7)


def test_a_cell_of_two_tensors_is_read_out_by_its_first():
    torch.manual_seed(0)
    recurrence = learning_rule("crbp", ConvLSTMCell(8, 3), steps=3)
    head = RecurrentMaskHead(ShapeSpec(channels=8), recurrence=recurrence, num_classes=CLASSES, conv_dim=8).eval()
    x = torch.randn(2, 8, 14, 14)
    torch.testing.assert_close(head.layers(x), head.read_out(recurrence(x).state[0]))


def test_transposed_solves_are_logged_too():
    head = make_head("deq")
    with EventStorage() as storage, warnings.catch_warnings():
        warnings.simplefilter("ignore", UnconvergedWarning)
        sum(head(torch.randn(4, 8, 14, 14), [make_instances(4)]).values()).backward()
        latest = {name: value for name, (value, _) in storage.latest().items()}
    report = head.recurrence.last_stats.transpose
    assert latest["recurrence/transpose_unconverged"] == (~report.converged).sum()
    assert latest["recurrence/transpose_steps"] == report.sample_steps.double().mean()
    assert latest["recurrence/transpose_residual"] == pytest.approx(report.residual.mean().item(), rel=1e-6)
    assert latest["recurrence/unconverged"] == 4


def test_logits_have_twice_the_size_and_widths_are_projected():
    head = make_head(in_channels=12).eval()
    x = torch.randn(2, 12, 7, 7)
    logits = head.layers(x)
    assert logits.shape == (2, CLASSES, 14, 14)
    state = head.recurrence(head.projection(x)).state[0]
    normed = (state - head.norm.running_mean[:, None, None]) / (head.norm.running_var[:, None, None] + 1e-5).sqrt()
    truth = head.predictor(head.deconv(normed * head.norm.weight[:, None, None]).relu())
    torch.testing.assert_close(logits, truth, rtol=1e-4, atol=1e-6)


def test_inference_attaches_probabilities_of_the_predicted_class():
    head = make_head(test_steps=7).eval()
    x = torch.randn(2, 8, 14, 14)
    instances = Instances((32, 32), pred_classes=torch.tensor([2, 0]))
    with torch.no_grad():
        (result,) = head(x, [instances])
        state = head.recurrence(x, steps=7).state[0]
        truth = torch.sigmoid(head.read_out(state))[torch.arange(2), instances.pred_classes]
    assert head.recurrence.last_stats.steps == 7
    torch.testing.assert_close(result.pred_masks[:, 0], truth)


def test_inference_without_boxes():
    head = make_head().eval()
    with torch.no_grad():
        (result,) = head(torch.zeros(0, 8, 14, 14), [Instances((32, 32), pred_classes=torch.zeros(0).long())])
    assert result.pred_masks.shape == (0, 1, 28, 28)


def test_solve_statistics_are_scalars_of_the_event_storage():
    head = make_head()
    with EventStorage() as storage:
        losses = head(torch.randn(4, 8, 14, 14), [make_instances(4)])
        sum(losses.values()).backward()
        latest = {name.removeprefix("recurrence/"): value for name, (value, _) in storage.latest().items()}
    assert latest["steps"] == 3
    assert latest["series_terms"] == 15
    assert latest["growth_events"] == head.recurrence.last_stats.transpose.growing.sum()
    assert latest["residual"] == pytest.approx(head.recurrence.last_stats.residual.mean().item(), rel=1e-6)
    assert latest["lipschitz"] * 0.001 == pytest.approx(losses["loss_lipschitz"].item(), rel=1e-6)


def small_config(**recurrence):
    cfg = get_cfg()
    add_crbp_config(cfg)
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.ROI_MASK_HEAD.NAME = "RecurrentMaskHead"
    cfg.MODEL.ROI_MASK_HEAD.CONV_DIM = 8
    for key, value in recurrence.items():
        cfg.merge_from_list([f"MODEL.RECURRENCE.{key.replace('__', '.')}", value])
    return cfg


def test_config_chooses_rule_solver_and_cell():
    cfg = small_config(
        RULE="deq", SOLVER__NAME="Broyden", SOLVER__TOL=1e-2, SOLVER__MAX_STEPS=33, SOLVER__MEMORY=4,
        CELL__NAME="HGRUCell", CELL__FORM="released", CELL__KERNEL_SIZE=5, CELL__NORM="BN",
    )  # fmt: skip
    recurrence = build_mask_head(cfg, ShapeSpec(channels=8, width=14, height=14)).recurrence
    solver = recurrence.solver
    assert (type(solver), solver.tol, solver.steps, solver.memory) == (Broyden, 1e-2, 33, 4)
    assert recurrence.gradient.transpose is solver
    assert (recurrence.cell.form, recurrence.cell.excitation.kernel_size) == ("released", (5, 5))


def test_config_builds_the_head_it_describes():
    cfg = small_config(STEPS=7, TEST_STEPS=9, NEUMANN__TERMS=4, PENALTY__BOUND=0.5, PENALTY__WEIGHT=0.3)
    head = build_mask_head(cfg, ShapeSpec(channels=8, width=14, height=14))
    assert isinstance(head, RecurrentMaskHead)
    assert head.recurrence.solver.steps == 7 and head.test_steps == 9
    assert head.recurrence.gradient.transpose.num_terms == 4
    assert head.recurrence.penalty.bound == 0.5 and head.recurrence.penalty.reduction == "sum"
    assert head.penalty_weight == 0.3
    assert type(head.norm) is torch.nn.BatchNorm2d


def test_config_has_rois_stop_early_in_inference_only():
    shape = ShapeSpec(channels=8, width=14, height=14)
    plain = build_mask_head(small_config(EARLY_STOP__TOL=0.2), shape).recurrence.solver
    assert isinstance(plain, FixedSteps)
    torch.manual_seed(0)
    head = build_mask_head(small_config(EARLY_STOP__ENABLED=True, EARLY_STOP__TOL=0.2), shape)
    x = torch.randn(3, 8, 14, 14)
    with EventStorage() as storage:
        head(x, [make_instances(3)])
        assert storage.latest()["recurrence/steps"][0] == 20
    with torch.no_grad():
        (result,) = head.eval()(x, [Instances((32, 32), pred_classes=torch.tensor([2, 0, 1]))])
        steps = head.recurrence.last_stats.sample_steps.tolist()
        assert max(steps) < 20
        for n, k in enumerate(result.pred_classes):
            head.test_steps, head.recurrence.solver = steps[n], plain
            torch.testing.assert_close(result.pred_masks[n, 0], head.layers(x[n : n + 1])[0, k].sigmoid())


@pytest.mark.parametrize("count", [2, 0])
def test_drops_into_a_plain_mask_rcnn_with_two_lines(count):
    """No panoptic model, no Trainer, no custom ROI heads; also for an image without instances."""
    cfg = get_cfg()
    cfg.merge_from_file(model_zoo.get_config_file("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"))
    cfg.MODEL.WEIGHTS, cfg.MODEL.DEVICE = "", "cpu"
    cfg.MODEL.RESNETS.DEPTH, cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 18, 64
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = CLASSES
    add_crbp_config(cfg)
    cfg.MODEL.ROI_MASK_HEAD.NAME = "RecurrentMaskHead"
    cfg.MODEL.ROI_MASK_HEAD.CONV_DIM = 8
    cfg.MODEL.RECURRENCE.STEPS = 2

    torch.manual_seed(0)
    model = build_model(cfg)
    instances = make_instances(count, size=64)
    instances.gt_boxes = instances.proposal_boxes
    instances.remove("proposal_boxes")
    with EventStorage():
        losses = model([{"image": torch.randint(0, 255, (3, 64, 64)).float(), "instances": instances}])
        sum(losses.values()).backward()
    assert {"loss_mask", "loss_lipschitz", "loss_cls", "loss_box_reg"} < set(losses)
    assert all(loss.isfinite() for loss in losses.values())
    for name, parameter in model.named_parameters():
        assert not parameter.requires_grad or parameter.grad is not None, name
    assert model.roi_heads.mask_head.projection.weight.shape == (8, 256, 1, 1)


def test_panoptic_model_sets_the_steps_of_inference():
    cfg = get_cfg()
    add_crbp_config(cfg)
    cfg.merge_from_file(str(ROOT / "configs/panoptic_R50_crbp.yaml"))
    cfg.MODEL.WEIGHTS, cfg.MODEL.DEVICE = "", "cpu"
    cfg.MODEL.RESNETS.DEPTH, cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 18, 64
    cfg.MODEL.ROI_MASK_HEAD.CONV_DIM = 8
    model = build_model(cfg).eval()
    assert isinstance(model, RecurrentPanopticFPN)
    assert model.test_steps == 20 and model.solve_stats is None
    model.test_steps = 2
    with torch.no_grad():
        (result,) = model([{"image": torch.randint(0, 255, (3, 64, 64)).float(), "height": 32, "width": 48}])
    assert result["sem_seg"].shape == (54, 32, 48)
    assert result["panoptic_seg"][0].shape == (32, 48)
    assert model.solve_stats.steps == 2
    with pytest.raises(ValueError, match="test_steps is 0"):
        model.test_steps = 0


def test_panoptic_model_refuses_a_feedforward_head():
    cfg = get_cfg()
    add_crbp_config(cfg)
    cfg.merge_from_file(str(ROOT / "configs/panoptic_R50_baseline.yaml"))
    cfg.MODEL.WEIGHTS, cfg.MODEL.DEVICE, cfg.MODEL.META_ARCHITECTURE = "", "cpu", "RecurrentPanopticFPN"
    with pytest.raises(ValueError, match="'RecurrentMaskHead'.*ConvUpsampleHead"):
        build_model(cfg)


def test_wide_cells_use_the_cpus_layout_with_the_same_values(monkeypatch):
    torch.manual_seed(0)
    recurrence = learning_rule("crbp", GalaHGRUCell(64), steps=3)
    head = RecurrentMaskHead(ShapeSpec(channels=64), recurrence=recurrence, num_classes=2, readout_norm="")
    x = torch.randn(2, 64, 14, 14)

    def run():
        head.zero_grad()
        output = head.run(x)
        (output.state[0].square().mean() + output.penalty).backward()
        return output.state[0], [parameter.grad.clone() for parameter in recurrence.parameters()]

    state, gradients = run()
    assert state.is_contiguous(memory_format=torch.channels_last)
    monkeypatch.setattr("crbp_d2.modeling.mask_head.preferred_layout", lambda *_: torch.contiguous_format)
    plain, expected = run()
    assert plain.is_contiguous()
    torch.testing.assert_close(state, plain, rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(gradients, expected, strict=True):
        assert (ours - theirs).norm() <= 1e-3 * theirs.norm() + 1e-7
