"""Recurrences and heads on the device compute what they compute on the CPU."""

import copy

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage
from helpers.agreement import PRECISIONS, check_agreement, error

from crbp_d2.cells import CELLS, GalaHGRUCell, HGRUCell, build_cell
from crbp_d2.modeling import ContourSegHead, RecurrentMaskHead, RecurrentSemSegHead
from crbp_d2.recurrence import (
    RULES,
    Anderson,
    Broyden,
    EarlyExit,
    FixedSteps,
    Implicit,
    NeumannSeries,
    RandomSteps,
    Recurrence,
    learning_rule,
)

pytestmark = pytest.mark.filterwarnings("ignore::crbp_d2.recurrence.UnconvergedWarning")
SOLVERS = {
    "fixed": lambda: FixedSteps(6),
    "random": lambda: RandomSteps(2, 6, seed=1),
    "anderson": lambda: Anderson(max_steps=12, tol=1e-3),
    "broyden": lambda: Broyden(max_steps=12, tol=1e-3),
    "early exit": lambda: EarlyExit(FixedSteps(12), tol=0.05),
}
SERIES = {"terms": lambda: NeumannSeries(4), "tolerance": lambda: NeumannSeries(12, tol=0.05)}
FOCAL = {"readout_norm": "GN", "focal_gamma": 2.0, "prior_prob": 0.1}


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("rule", RULES)
def test_cells_and_rules(rule, name, gpu):
    check_agreement(rule, name, "auto", 3, "float32", "cuda")


@pytest.mark.parametrize("method", ["direct", "fft"])
@pytest.mark.parametrize("rule", RULES)
def test_convolution_methods(rule, method, gpu):
    check_agreement(rule, "HGRUCell", method, 5, "float32", "cuda")


@pytest.mark.parametrize("precision", [p for p in PRECISIONS if p != "float32"])
@pytest.mark.parametrize("rule", ["bptt", "crbp", "deq"])
def test_precisions(rule, precision, gpu):
    check_agreement(rule, "GalaHGRUCell", "auto", 3, precision, "cuda")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_keeps_the_state_in_float32(dtype, gpu):
    recurrence = learning_rule("crbp", HGRUCell(4, kernel_size=3), steps=4).to("cuda")
    with torch.autocast("cuda", dtype):
        output = recurrence(torch.randn(2, 4, 8, 8).to("cuda"))
    assert output.state[0].dtype == torch.float32


def results(recurrence, drive):
    """State, gradients and inferred state of a training step with a penalty."""
    drive = drive.detach().requires_grad_()
    output = recurrence.train()(drive)
    loss = sum(part.sin().sum() for part in output.state) + 1e-3 * output.penalty
    gradients = torch.autograd.grad(loss, [drive, *recurrence.cell.parameters()])
    with torch.no_grad():
        inferred = recurrence.eval()(drive)
    return inferred.stats.sample_steps.tolist(), output.state, gradients, inferred.state


@pytest.mark.parametrize("series", SERIES)
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("start", ["zero", "drive"])
@pytest.mark.parametrize("name", ["GalaHGRUCell", "ConvLSTMCell"])
def test_solvers(name, start, solver, series, gpu):
    cell = build_cell(name, 8, kernel_size=3, norm="GN", timescale=4, start=start)
    recurrence = Recurrence(cell, SOLVERS[solver](), Implicit(SERIES[series]()))
    drive = torch.randn(5, 8, 9, 8)
    moved = copy.deepcopy(recurrence).to("cuda")
    steps, *expected = results(recurrence, drive)
    gpu_steps, *found = results(moved, drive.to("cuda"))
    assert gpu_steps == steps
    for a, b, tolerance in zip(found, expected, (1e-4, 1e-3, 1e-4), strict=True):
        assert all(part.device.type == "cuda" for part in a) and error(a, b) < tolerance


def contour_head():
    recurrence = learning_rule("crbp", HGRUCell(4, kernel_size=3), steps=3, reduction="mean")
    head = ContourSegHead(
        {"stem": ShapeSpec(channels=4, stride=1)}, recurrence=recurrence, loss_weight=1.0, ignore_value=255, **FOCAL
    )
    targets = torch.randint(2, (2, 12, 12))
    targets[0, 0] = 255
    return head, lambda device: ({"stem": torch.ones(2, 4, 12, 12, device=device)}, targets.to(device))


def mask_head():
    recurrence = learning_rule("crbp", GalaHGRUCell(8), steps=3, reduction="sum")
    head = RecurrentMaskHead(ShapeSpec(channels=8), recurrence=recurrence, num_classes=3, conv_dim=8)
    features, boxes = torch.randn(4, 8, 14, 14), torch.tensor([[2.0, 2.0, 20.0, 24.0]]).repeat(4, 1)
    masks = torch.zeros(4, 32, 32, dtype=torch.bool)
    masks[:, 5:15, 5:15] = True

    def inputs(device):
        objects = Instances(
            (32, 32), proposal_boxes=Boxes(boxes), gt_masks=BitMasks(masks), gt_classes=torch.arange(4) % 3
        )
        return features.to(device), [objects.to(device)]

    return head, inputs


def semantic_head():
    recurrence = learning_rule("crbp", GalaHGRUCell(32), steps=3, reduction="sum")
    shapes = {name: ShapeSpec(channels=4, stride=stride) for name, stride in (("p2", 4), ("p3", 8))}
    head = RecurrentSemSegHead(
        shapes, recurrence=recurrence, num_classes=3, conv_dims=32, common_stride=4, norm="GN", ignore_value=255
    )
    features = {"p2": torch.randn(2, 4, 8, 8), "p3": torch.randn(2, 4, 4, 4)}
    targets = torch.randint(3, (2, 32, 32))
    return head, lambda device: ({name: x.to(device) for name, x in features.items()}, targets.to(device))


@pytest.mark.parametrize("build", [mask_head, contour_head, semantic_head])
def test_heads(build, gpu):
    head, inputs = build()
    found = []
    for device in ("cpu", "cuda"):
        part = copy.deepcopy(head).to(device)
        with EventStorage():
            losses = part(*inputs(device))
            losses = losses if isinstance(losses, dict) else losses[1]
            sum(losses.values()).backward()
        assert {loss.device.type for loss in losses.values()} == {device}
        found.append(([*losses.values()], [p.grad for p in part.parameters()]))
    (losses, gradients), (gpu_losses, gpu_gradients) = found
    assert error([x.view(1) for x in gpu_losses], [x.view(1) for x in losses]) < 1e-4
    assert error(gpu_gradients, gradients) < 1e-3
