"""Quality per step in one pass: against separate evaluations, pq_compute and COCOEvaluator."""

import csv
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator, inference_on_dataset
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from helpers.panoptic_set import HEIGHT, SEGMENTS, WIDTH, expected_semantic, register, write_set
from helpers.paths import ROOT

from crbp_d2 import add_crbp_config
from crbp_d2.data import register_toy_panoptic, semantic_map, write_instances_json
from crbp_d2.engine.loaders import build_test_loader
from crbp_d2.evaluation import (
    PanopticEvaluator,
    StepwisePanoptic,
    build_panoptic_evaluator,
    check_steps_to_evaluate,
    metric_tables,
)
from crbp_d2.evaluation.per_step.masks import MaskPrecisionByStep
from crbp_d2.evaluation.per_step.panoptic import MergeLimits, PanopticQualityByStep, PredictionsByStep, merge_instances
from tools.data_sets import free

TOY = ROOT / "configs/quick/panoptic_R18_crbp_toy.yaml"
STEPS = (1, 3, 4)
# Those of this file, or of another test in the same process.
TOY_SCENES = "toy_panoptic_train", "toy_panoptic_val", "toy_panoptic_val_as_files"


def config(*options):
    cfg = get_cfg()
    add_crbp_config(cfg)
    cfg.merge_from_file(str(TOY))
    small = ["MODEL.DEVICE", "cpu", "DATALOADER.NUM_WORKERS", 0, "TEST.PICTURES", 0, "MODEL.RPN.POST_NMS_TOPK_TEST", 5]
    cfg.merge_from_list([*small, *options])
    return cfg


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    free(*TOY_SCENES)
    register_toy_panoptic(str(tmp_path_factory.mktemp("datasets")), num_train=1, num_val=3)
    yield
    free(*TOY_SCENES)


def model_that_knows_boxes(cfg):
    """An untrained model whose boxes and semantic maps are near the truth; counts the calls of its parts.

    Its masks are boxes with holes, other ones after every step.
    """
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    head = model.roi_heads.mask_head
    with torch.no_grad():
        head.recurrence.cell.excitation_norm.weight.fill_(2)
        head.predictor.weight.normal_(std=0.6)
        head.predictor.bias.fill_(0.8)
    generator = torch.Generator().manual_seed(1)
    calls = {"backbone": 0, "boxes": 0, "semantic": 0, "cell": 0}
    current = []

    def count(name):
        def hook(*_):
            calls[name] += 1

        return hook

    model.backbone.register_forward_hook(count("backbone"))
    head.recurrence.cell.register_forward_hook(count("cell"))
    preprocess = model.preprocess_image

    def remember(inputs):
        current[:] = inputs
        generator.manual_seed(inputs[0]["image_id"])
        return preprocess(inputs)

    def boxes(features, proposals):
        calls["boxes"] += 1
        (record,) = current
        true = next(r for r in DatasetCatalog.get("toy_panoptic_val") if r["image_id"] == record["image_id"])
        scale = record["image"].shape[1] / record["height"]
        xywh = scale * torch.tensor([a["bbox"] for a in true["annotations"]], dtype=torch.float32).reshape(-1, 4)
        xyxy = torch.cat([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], dim=1)
        classes = torch.tensor([a["category_id"] for a in true["annotations"]], dtype=torch.long)
        # Each twice, the second time of another place, so that instances overlap; one without an extent.
        moved = xyxy + 6 * torch.rand(xyxy.shape, generator=generator) - 3
        instances = Instances(tuple(record["image"].shape[1:]))
        instances.pred_boxes = Boxes(torch.cat([xyxy, moved, torch.tensor([[5.0, 5.0, 5.0, 9.0]])]))
        instances.pred_classes = torch.cat([classes, classes, torch.tensor([0])])
        instances.scores = 0.3 + 0.7 * torch.rand(len(instances), generator=generator)
        return [instances]

    def semantic(features, targets=None):
        calls["semantic"] += 1
        (record,) = current
        true = next(r for r in DatasetCatalog.get("toy_panoptic_val") if r["image_id"] == record["image_id"])
        labels = cv2.resize(semantic_map(true), record["image"].shape[:0:-1], interpolation=cv2.INTER_NEAREST)
        logits = torch.nn.functional.one_hot(torch.from_numpy(labels).long(), 5).permute(2, 0, 1).float()
        return (logits + 1.2 * torch.rand(logits.shape, generator=generator))[None], {}

    model.preprocess_image = remember
    model.roi_heads._forward_box = boxes
    model.sem_seg_head.forward = semantic
    return model, calls


def evaluate(cfg, model, folder):
    loader = build_test_loader(cfg, "toy_panoptic_val")
    return inference_on_dataset(model, loader, build_panoptic_evaluator(cfg, "toy_panoptic_val", str(folder)))


def test_each_step_count_is_what_a_separate_evaluation_finds(scenes, tmp_path):
    cfg = config("TEST.STEPS_TO_EVALUATE", str(STEPS), "MODEL.RECURRENCE.TEST_STEPS", 2)
    model, calls = model_that_knows_boxes(cfg)
    results = evaluate(cfg, StepwisePanoptic(model, STEPS), tmp_path / "all")
    assert calls == {"backbone": 3, "boxes": 3, "semantic": 3, "cell": 3 * max(STEPS)}
    panoptic, segm = results["panoptic_seg"], results["segm"]
    for t in (2, *STEPS):
        suffix = "" if t == 2 else f"@{t}"
        model.test_steps = t
        separate = evaluate(config(), model, tmp_path / str(t))
        for measure in ("PQ", "SQ", "RQ", "PQ_th", "PQ_st"):
            assert panoptic[measure + suffix] == pytest.approx(separate["panoptic_seg"][measure], abs=1e-9), (
                t,
                measure,
            )
        assert segm[f"AP{suffix}"] == pytest.approx(separate["segm"]["AP"], abs=1e-9)
    for figures in ([panoptic[f"PQ_th@{t}"] for t in STEPS], [segm[f"AP@{t}"] for t in STEPS]):
        assert len(set(figures)) == len(STEPS) and min(figures) > 1, figures

    rows = list(csv.DictReader((tmp_path / "all/quality_per_step.csv").read_text().splitlines()))
    assert list(rows[0]) == ["t", "PQ", "SQ", "RQ", "PQ_th", "PQ_st", "mask AP"]
    assert [int(row["t"]) for row in rows] == list(STEPS)
    assert float(rows[1]["PQ_th"]) == pytest.approx(panoptic["PQ_th@3"], abs=1e-4)
    assert float(rows[2]["mask AP"]) == pytest.approx(segm["AP@4"], abs=1e-4)
    picture = cv2.imread(str(tmp_path / "all/quality_per_step.png"))
    assert picture.shape == (600, 900, 3) and picture.std() > 10
    assert np.ptp(picture.astype(int), axis=2).max() < 3  # no colour
    table = metric_tables({"mine": results}).splitlines()
    assert [line.split("|")[1].strip() for line in table[6:]] == ["1", "3", "4"]
    assert f"{panoptic['PQ@4']:.2f}" in table[-1] and f"{segm['AP@4']:.2f}" in table[-1]


def test_outputs_have_detectron2s_entries_for_each_step(scenes):
    cfg = config()
    model, _ = model_that_knows_boxes(cfg)
    (inputs,) = [batch for batch in build_test_loader(cfg, "toy_panoptic_val") if batch[0]["image_id"] == 0]
    with torch.no_grad():
        (output,) = StepwisePanoptic(model, STEPS)(inputs)
        (usual,) = model(inputs)
        assert set(output) == {*usual, "by_step"} and set(output["by_step"]) == set(STEPS)
        assert output["instances"].get_fields().keys() == usual["instances"].get_fields().keys()
        for t in STEPS:
            model.test_steps = t
            (separate,) = model(inputs)
            found = output["by_step"][t]
            assert torch.equal(found["instances"].pred_masks, separate["instances"].pred_masks)
            assert torch.equal(found["instances"].pred_boxes.tensor, separate["instances"].pred_boxes.tensor)
            assert torch.equal(found["panoptic_seg"][0], separate["panoptic_seg"][0])
            assert found["panoptic_seg"][1] == separate["panoptic_seg"][1]
    with pytest.raises(KeyError):
        output["by_step"][2]


@pytest.fixture
def crowded_set(tmp_path):
    write_set(tmp_path)
    register(tmp_path)
    MetadataCatalog.get("tiny").json_file = str(tmp_path / "instances.json")
    write_instances_json("tiny", str(tmp_path / "instances.json"))
    yield
    DatasetCatalog.remove("tiny")
    MetadataCatalog.remove("tiny")


def random_prediction(seed, steps, count=9):
    """Masks in and around the true instances, the crowd and the void; their holes change from step to step."""
    rng = np.random.default_rng(seed)
    true = [(0 if category == 9 else 1, columns.start, rows.start, columns.stop, rows.stop)
            for category, _, rows, columns in SEGMENTS.values() if category in (9, 12)]  # fmt: skip
    true.append((0, 10, 36, 40, 40))  # in void and crowd
    chosen = [true[k % len(true)] for k in range(count)]
    boxes = torch.tensor([box for _, *box in chosen], dtype=torch.float32).reshape(-1, 4)
    boxes += torch.from_numpy(rng.uniform(-2, 2, boxes.shape)).float()
    instances = Instances((HEIGHT, WIDTH), pred_boxes=Boxes(boxes))
    instances.pred_boxes.clip((HEIGHT, WIDTH))
    instances.pred_classes = torch.tensor([cls for cls, *_ in chosen], dtype=torch.long)
    instances.scores = torch.from_numpy(rng.uniform(0.3, 1, count)).float()
    masks = torch.from_numpy(rng.uniform(0.3, 1, (count, len(steps), 8, 8))).float()
    masks[:, -1] *= 0.4  # nothing at all at the last step
    semantic = np.where(rng.uniform(size=(HEIGHT, WIDTH)) < 0.9, expected_semantic(), rng.integers(0, 3))
    semantic[semantic == 255] = rng.integers(0, 3)
    return PredictionsByStep(steps, instances, masks, torch.from_numpy(semantic), MergeLimits(0.5, 820, 0.5))


@pytest.mark.parametrize("seed,count", [(0, 9), (1, 9), (2, 4), (3, 0)])
def test_quality_equals_pq_compute_and_cocoeval(crowded_set, seed, count):
    steps = (2, 5, 7)
    predictions = {image_id: random_prediction(10 * seed + image_id, steps, count) for image_id in (4, 2)}
    quality, precision = PanopticQualityByStep("tiny", steps), MaskPrecisionByStep("tiny", steps)
    for image_id, prediction in predictions.items():
        quality.add(image_id, prediction)
        precision.add(image_id, prediction)
    found, ap = quality.results(quality.found), precision.results(precision.found)["AP"]
    for k, t in enumerate(steps):
        evaluators = PanopticEvaluator("tiny"), COCOEvaluator("tiny", tasks=("segm",), use_fast_impl=False)
        for evaluator in evaluators:
            evaluator.reset()
            for image_id, prediction in predictions.items():
                record = {"image_id": image_id, "file_name": f"{image_id:03d}.png"}
                evaluator.process([record], [prediction[t]])
        truth, coco = evaluators[0].evaluate()["panoptic_seg"], evaluators[1].evaluate()["segm"]
        for measure, values in found.items():
            assert values[k] == pytest.approx(truth[measure], abs=1e-9), (t, measure)
        assert ap[k] == pytest.approx(coco["AP"], abs=1e-9, nan_ok=True)
    if count == 9:
        assert found["PQ_th"][0] > 1 and ap[0] > 1


def test_an_overlap_of_exactly_the_limit_is_kept():
    """As in detectron2: the second instance is half covered by the first."""
    instances = Instances((8, 12), pred_boxes=Boxes(torch.tensor([[0.0, 0, 8, 8], [4, 0, 12, 8]])))
    instances.scores, instances.pred_classes = torch.tensor([0.9, 0.8]), torch.tensor([0, 1])
    semantic = torch.zeros(8, 12, dtype=torch.long)
    prediction = PredictionsByStep((1,), instances, torch.ones(2, 1, 4, 4), semantic, MergeLimits(0.5, 1, 0.5))
    owners, _ = merge_instances(prediction)
    assert np.array_equal(np.unique(owners), [1, 2]) and np.array_equal(owners[0], prediction[1]["panoptic_seg"][0])


def test_large_images_are_counted_in_parts(crowded_set, monkeypatch):
    steps = (1, 2, 3, 4, 5)
    quality = PanopticQualityByStep("tiny", steps)
    quality.add(4, random_prediction(0, steps))
    whole = quality.results(quality.found)
    monkeypatch.setattr("crbp_d2.evaluation.per_step.panoptic.CHUNK", 2 * HEIGHT * WIDTH)
    quality.reset()
    quality.add(4, random_prediction(0, steps))
    for measure, values in quality.results(quality.found).items():
        assert np.array_equal(values, whole[measure], equal_nan=True)


@pytest.mark.parametrize(
    "options,expected",
    [
        (["TEST.STEPS_TO_EVALUATE", "(0, 4)"], r"TEST.STEPS_TO_EVALUATE is \(0, 4\); allowed: whole numbers from 1"),
        (
            ["MODEL.ROI_MASK_HEAD.NAME", "MaskRCNNConvUpsampleHead"],
            "not those with MaskRCNNConvUpsampleHead and SemSeg",
        ),
        (["MODEL.MASK_ON", False], "not those with SemSegFPNHead: leave it empty"),
        (["MODEL.RECURRENCE.EARLY_STOP.ENABLED", True], "STEPS_TO_EVALUATE is .*EARLY_STOP.ENABLED is True"),
    ],
)
def test_refusals(options, expected):
    check_steps_to_evaluate(config("TEST.STEPS_TO_EVALUATE", "(4, 8)"))
    check_steps_to_evaluate(config("MODEL.RECURRENCE.EARLY_STOP.ENABLED", True))
    with pytest.raises(ValueError, match=expected):
        check_steps_to_evaluate(config("TEST.STEPS_TO_EVALUATE", "(4, 8)", *options))


def test_a_head_without_steps_is_refused():
    model = torch.nn.Module()
    model.roi_heads = SimpleNamespace(mask_head=torch.nn.Identity())
    with pytest.raises(ValueError, match="Identity has no steps to evaluate"):
        StepwisePanoptic(model, (4,))
