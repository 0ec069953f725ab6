"""The Pathfinder network: stem, heads, losses, and what detectron2 gets from it."""

import cmath
import math

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import SemanticSegmentor, build_model
from detectron2.utils.events import EventStorage
from torch.nn import functional as F

from crbp_d2 import add_crbp_config
from crbp_d2.cells import HGRUCell
from crbp_d2.evaluation import StepwiseSegmentor
from crbp_d2.modeling import ContourSegHead, ContourStem, check_recurrence_config
from crbp_d2.modeling.contour_stem import gabor_bank
from crbp_d2.recurrence import RULES, learning_rule

SIZE = 20


def config(*options):
    cfg = get_cfg()
    add_crbp_config(cfg)
    cfg.merge_from_file("configs/bases/pathfinder_small.yaml")
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", "MODEL.CONTOUR.CHANNELS", 4, "MODEL.RECURRENCE.STEPS", 5,
                         "MODEL.RECURRENCE.CELL.KERNEL_SIZE", 3, *options])  # fmt: skip
    return cfg


@pytest.fixture(autouse=True)
def from_the_root(monkeypatch):
    monkeypatch.chdir(__file__.rsplit("/tests/", 1)[0])


def inputs(count=2, labels=True, seed=0):
    generator = torch.Generator().manual_seed(seed)
    records = []
    for _ in range(count):
        image = (255 * torch.rand(1, SIZE, SIZE, generator=generator)).to(torch.uint8)
        records.append({"image": image, "height": SIZE, "width": SIZE})
        if labels:
            records[-1]["sem_seg"] = (torch.rand(SIZE, SIZE, generator=generator) < 0.1).long()
    return records


def test_gabor_filters_follow_the_formula():
    bank = gabor_bank(25, 7).double()
    assert bank.shape == (25, 1, 7, 7)
    for k in range(12):
        angle = math.pi * k / 12
        cosine, sine = torch.zeros(7, 7, dtype=torch.float64), torch.zeros(7, 7, dtype=torch.float64)
        for row in range(7):
            for column in range(7):
                turned = complex(column - 3, row - 3) * cmath.exp(-1j * angle)
                envelope = math.exp(-(turned.real**2 + (0.75 * turned.imag) ** 2) / (2 * 1.4**2))
                cosine[row, column] = envelope * math.cos(2 * math.pi * turned.real / 4)
                sine[row, column] = envelope * math.sin(2 * math.pi * turned.real / 4)
        for found, formula in zip(bank[2 * k : 2 * k + 2, 0], (cosine, sine), strict=True):
            formula = formula - formula.mean()
            torch.testing.assert_close(found, formula / formula.norm(), rtol=0, atol=1e-6)
    isotropic = bank[24, 0]
    torch.testing.assert_close(isotropic, isotropic.rot90())
    assert isotropic[3, 3] > 0 > isotropic[0, 3]


def test_stem_is_the_square_of_its_convolution():
    stem = ContourStem(channels=6, kernel_size=5)
    images = torch.rand(2, 1, 9, 8)
    features = stem(images)["stem"]
    assert stem.output_shape()["stem"].channels == 6 and stem.output_shape()["stem"].stride == 1
    torch.testing.assert_close(features, F.conv2d(images, gabor_bank(6, 5), padding=2) ** 2)
    with pytest.raises(ValueError, match="images of 1 channel, got 3"):
        stem(torch.rand(2, 3, 9, 8))
    with pytest.raises(ValueError, match="kernel_size is 4; allowed: odd"):
        ContourStem(kernel_size=4)


def test_detectron2_gets_a_segmentor_like_any_other():
    model = build_model(config())
    assert type(model) is SemanticSegmentor
    model.eval()
    with torch.no_grad():
        outputs = model(inputs(labels=False))
        assert [output["sem_seg"].shape for output in outputs] == [(2, SIZE, SIZE)] * 2
        larger = model([{**record, "height": 2 * SIZE, "width": SIZE} for record in inputs(labels=False)])
    assert larger[0]["sem_seg"].shape == (2, 2 * SIZE, SIZE)
    # Predictions start at the prior probability; the two images share only the norms' statistics.
    start = outputs[0]["sem_seg"].softmax(dim=0)[1]
    assert start.mean() == pytest.approx(0.01, rel=0.1)


def test_losses_are_the_focal_loss_and_the_weighted_penalty():
    model = build_model(config("MODEL.SEM_SEG_HEAD.LOSS_WEIGHT", 3.0, "MODEL.RECURRENCE.PENALTY.BOUND", 0.0))
    records = inputs()
    records[0]["sem_seg"][2:5] = 255
    with EventStorage() as storage:
        losses = model(records)
    assert set(losses) == {"loss_sem_seg", "loss_lipschitz"}
    head = model.sem_seg_head
    drive = model.backbone(torch.stack([record["image"] for record in records]) / 255)["stem"]
    output = head.recurrence(drive)
    probability = head.read_out(output.state[0]).detach().softmax(dim=1).double()
    total, count = 0.0, 0
    for n, record in enumerate(records):
        for row in range(SIZE):
            for column in range(SIZE):
                label = int(record["sem_seg"][row, column])
                if label != 255:
                    p = float(probability[n, label, row, column])
                    total, count = total - (1 - p) ** 2 * math.log(p), count + 1
    assert losses["loss_sem_seg"].item() == pytest.approx(3 * total / count, rel=1e-4)
    assert losses["loss_lipschitz"].item() == pytest.approx(10 * output.penalty.item(), rel=1e-4) != 0
    assert storage.latest()["recurrence/steps"][0] == 5
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_a_loss_on_every_step_is_the_mean_over_them():
    model = build_model(config("MODEL.RECURRENCE.RULE", "bptt_every_step"))
    records = inputs()
    losses = model(records)
    head = model.sem_seg_head
    drive = model.backbone(torch.stack([record["image"] for record in records]) / 255)["stem"]
    states = head.recurrence(drive).states
    targets = torch.stack([record["sem_seg"] for record in records])
    each = [head.focal_loss(state[0], targets).item() for state in states]
    assert len(each) == 5 and max(each) > min(each)
    assert losses["loss_sem_seg"].item() == pytest.approx(sum(each) / 5, rel=1e-5)
    assert losses["loss_lipschitz"].item() == 0


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.filterwarnings("ignore::crbp_d2.recurrence.UnconvergedWarning")
def test_predictions_after_several_steps_come_from_one_run(rule):
    options = ["MODEL.RECURRENCE.RULE", rule, "MODEL.RECURRENCE.SOLVER.TOL", 1e-7]
    model = build_model(config(*options)).eval()
    records, calls = inputs(), []
    model.sem_seg_head.recurrence.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        outputs = StepwiseSegmentor(model, (2, 5, 7))(records)
        assert len(calls) == 1
        for t in (2, 5, 7):
            if rule in ("deq", "phantom") and t < 7:
                continue  # its states on the way are candidates, of which a run that ends there takes the best
            model.sem_seg_head.test_steps = t
            for output, single in zip(outputs, model(records), strict=True):
                torch.testing.assert_close(output["sem_seg_by_step"][t], single["sem_seg"])
        model.sem_seg_head.test_steps = None
        plain = model(records)[0]
        assert torch.equal(outputs[0]["sem_seg"], plain["sem_seg"]) and "sem_seg_by_step" not in plain


def test_feedforward_control_has_the_same_readout_and_no_steps():
    feedforward = ["MODEL.SEM_SEG_HEAD.NAME", "FeedforwardContourHead", "TEST.STEPS_TO_EVALUATE", ()]
    model = build_model(config(*feedforward))
    losses = model(inputs())
    assert set(losses) == {"loss_sem_seg"}
    losses["loss_sem_seg"].backward()
    assert sum(type(m).__name__ == "ReLU" for m in model.sem_seg_head.layers) == 6
    kernels = [m.kernel_size for m in model.sem_seg_head.layers if hasattr(m, "kernel_size")]
    assert kernels == [(3, 3)] * 6
    assert model.eval()(inputs(labels=False))[0]["sem_seg"].shape == (2, SIZE, SIZE)
    with pytest.raises(ValueError, match="FeedforwardContourHead has no steps"):
        StepwiseSegmentor(model, (3,))


def test_bad_targets_are_named():
    head = ContourSegHead({"stem": ShapeSpec(channels=4)}, recurrence=learning_rule("bptt", HGRUCell(4, 3), steps=2))
    state = torch.rand(2, 4, 6, 6)
    with pytest.raises(ValueError, match=r"targets are \(2, 6, 5\)"):
        head.focal_loss(state, torch.zeros(2, 6, 5, dtype=torch.long))
    with pytest.raises(ValueError, match="training needs the inputs' 'sem_seg'"):
        head({"stem": state})
    # Nothing but ignored pixels: a loss of zero that can be differentiated.
    loss = head.focal_loss(state, torch.full((2, 6, 6), 255))
    loss.backward()
    assert loss.item() == 0 and head.predictor.weight.grad.isfinite().all()


@pytest.mark.parametrize(
    "options,message",
    [
        (["MODEL.CONTOUR.CHANNELS", 0], "MODEL.CONTOUR.CHANNELS is 0; allowed"),
        (["MODEL.CONTOUR.STEM_KERNEL_SIZE", 6], "MODEL.CONTOUR.STEM_KERNEL_SIZE is 6; allowed: odd"),
        (
            ["MODEL.SEM_SEG_HEAD.NAME", "FeedforwardContourHead", "MODEL.CONTOUR.NUM_LAYERS", 0],
            "MODEL.CONTOUR.NUM_LAYERS is 0",
        ),
        (["MODEL.CONTOUR.FOCAL_GAMMA", float("nan")], "MODEL.CONTOUR.FOCAL_GAMMA is nan"),
        (["MODEL.CONTOUR.PRIOR_PROB", 1.0], "MODEL.CONTOUR.PRIOR_PROB is 1.0"),
        (["MODEL.SEM_SEG_HEAD.NUM_CLASSES", 3], "MODEL.SEM_SEG_HEAD.NUM_CLASSES is 3"),
        (
            ["MODEL.SEM_SEG_HEAD.IN_FEATURES", ["p2"]],
            r"MODEL.SEM_SEG_HEAD.IN_FEATURES is \['p2'\]; allowed: \['stem'\]",
        ),
        (["MODEL.RECURRENCE.CELL.CHANNELS", 8], "CELL.CHANNELS is 8, but MODEL.CONTOUR.CHANNELS is 4"),
        (["MODEL.RECURRENCE.READOUT_NORM", "SyncBN"], "READOUT_NORM is 'SyncBN'; allowed: BN, GN"),
    ],
)
def test_settings_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        check_recurrence_config(config(*options))


def test_a_model_for_colour_images_is_refused():
    with pytest.raises(ValueError, match=r"PIXEL_MEAN is \[0.0, 0.0.*1 channel"):
        build_model(config("MODEL.PIXEL_MEAN", [0.0, 0.0, 0.0]))
