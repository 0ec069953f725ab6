"""Outputs of tools/train_net.py with many keys set, run outside the repository."""

import json

import cv2
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from helpers import panoptic_set
from helpers.paths import ROOT
from helpers.programs import tool
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from crbp_d2.recurrence import RULES

CONFIG = ["--config-file", ROOT / "configs/quick/panoptic_R18_recurrent_toy.yaml"]
DATA = ["--register", "command_set", "panoptic.json", "panoptic", "images"]
TINY = ["SOLVER.IMS_PER_BATCH", 2, "SOLVER.WARMUP_ITERS", 0, "DATALOADER.NUM_WORKERS", 0, "MODEL.DEVICE", "cpu",
        "MODEL.RECURRENCE.STEPS", 3, "INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MIN_SIZE_TEST", 64, "TEST.PICTURES", 1,
        "MODEL.RPN.POST_NMS_TOPK_TEST", 5, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.01, "OUTPUT_DIR", "run"]  # fmt: skip


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A folder with a panoptic set; forgets what a test registers."""
    monkeypatch.chdir(tmp_path)
    panoptic_set.write_set(tmp_path)
    yield
    if "command_set" in DatasetCatalog.list():
        for name in ("command_set", "command_set_as_files"):
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)


def test_checkpoints_scalars_pictures_and_files_for_a_server(tmp_path):
    tool("train_net", *CONFIG, *DATA, *TINY, "SOLVER.MAX_ITER", 2, "TEST.EVAL_PERIOD", 1, "TEST.BEST_METRIC",
         "panoptic_seg/PQ", "SOLVER.EMA.ENABLED", True, "SOLVER.ACCUMULATE", 2, "SOLVER.AMP.ENABLED", True,
         "SOLVER.AMP.DTYPE", "bfloat16", "SOLVER.CLIP_GRADIENTS.ENABLED", True, "SOLVER.CLIP_GRADIENTS.CLIP_TYPE",
         "full_model", "TEST.VALIDATION_IMAGES", 1, "VIS_PERIOD", 2, "TEST.SETTLING", True,
         "TEST.STEPS_TO_EVALUATE", "(1, 3)")  # fmt: skip
    weights = [torch.load(tmp_path / f"run/model_{kind}.pth", weights_only=True)["model"] for kind in ("best", "ema")]
    assert weights[0].keys() == weights[1].keys()

    events = EventAccumulator("run")
    events.Reload()
    assert "prediction over steps" in events.Tags()["images"]
    expected = {"panoptic_seg/PQ", "panoptic_seg/PQ-cat", "panoptic_seg/PQ-sky", "panoptic_seg/PQ@1",
                "validation/loss_mask", "validation/loss_lipschitz", "validation/total_loss", "settling/mean_steps",
                "recurrence/residual", "recurrence/lipschitz"}  # fmt: skip
    assert not expected - set(events.Tags()["scalars"])
    # The penalty is no placeholder in a pass without an update.
    assert all(event.value > 0 for event in events.Scalars("validation/loss_lipschitz"))

    folder = tmp_path / "run/inference/command_set"
    predicted = json.loads((folder / "panoptic_predictions.json").read_text())
    assert {annotation["image_id"] for annotation in predicted["annotations"]} == {4, 2}
    for annotation in predicted["annotations"]:
        pixels = cv2.imread(str(folder / "panoptic_predictions" / annotation["file_name"]))[..., ::-1].astype(int)
        ids = set((pixels @ [1, 256, 65536]).ravel().tolist()) - {0}
        assert ids == {segment["id"] for segment in annotation["segments_info"]}
    instances = json.loads((folder / "coco_instances_results.json").read_text())
    assert instances and {"image_id", "category_id", "score", "bbox", "segmentation"} <= set(instances[0])
    assert {instance["category_id"] for instance in instances} <= {9, 12}


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES)
def test_every_rule_trains_both_heads_and_is_evaluated_per_step(tmp_path, rule):
    tool("train_net", *CONFIG, *DATA, *TINY, "SOLVER.MAX_ITER", 1, "MODEL.RECURRENCE.RULE", rule,
         "TEST.STEPS_TO_EVALUATE", "(1, 3, 6)")  # fmt: skip
    results = json.loads((tmp_path / "run/inference/command_set/results.json").read_text())
    assert {"PQ@1", "PQ@3", "PQ@6"} <= set(results["panoptic_seg"])
    losses = json.loads((tmp_path / "run/metrics.json").read_text().splitlines()[0])
    assert losses["loss_mask"] > 0 and losses["loss_sem_seg"] > 0
