"""Numbers of files entered and objects built by the most frequent tasks."""

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage
from helpers.paths import ROOT
from helpers.tracer import traced
from PIL import Image

from crbp_d2 import add_crbp_config
from crbp_d2.cli import predict
from crbp_d2.engine.run import main
from crbp_d2.modeling import RecurrentMaskHead
from tools.soak.small_runs import RUNS

pytestmark = pytest.mark.usefixtures("small_sets")
ONE = ("SOLVER.MAX_ITER", "1", "DATASETS.TEST", "()", "DATALOADER.NUM_WORKERS", "0")


@pytest.mark.parametrize("name", ["panoptic", "stream"])
def test_a_training_checks_once(tmp_path, name):
    with traced() as trace:
        main([*RUNS[name].arguments(tmp_path), *ONE])
    assert trace.calls["config_file.py:merge_config_file"] == 1
    assert trace.calls["engine/settings.py:check_settings"] == 1
    assert trace.calls["engine/setup.py:check_inputs"] == 1
    assert trace.calls["modeling/check.py:check_recurrence_config"] == 1
    assert 1 <= trace.built["recurrence/recurrence.py:Recurrence"] <= 2
    kinds = ("solvers/", "gradients/", "penalties.py", "supervision.py")
    parts = {name: count for name, count in trace.built.items() if name.removeprefix("recurrence/").startswith(kinds)}
    assert sum(parts.values()) <= 20, parts


def test_a_prediction_enters_few_files(tmp_path):
    main([*RUNS["panoptic"].arguments(tmp_path / "run"), *ONE])
    Image.fromarray(np.zeros((48, 48, 3), np.uint8)).save(tmp_path / "a.png")
    with traced() as trace:
        predict.main([str(tmp_path / "a.png"), "--run", str(tmp_path / "run"), "--output", str(tmp_path / "out")])
    assert 10 < len(trace.files) <= 40, sorted(trace.files)


def test_the_mask_head_enters_few_files():
    cfg = get_cfg()
    add_crbp_config(cfg)
    cfg.merge_from_file(str(ROOT / "configs/panoptic_R50_crbp.yaml"))
    cfg.merge_from_list(["MODEL.RECURRENCE.STEPS", 3, "MODEL.RECURRENCE.NEUMANN.TERMS", 2])
    head = RecurrentMaskHead(cfg, ShapeSpec(channels=cfg.MODEL.ROI_MASK_HEAD.CONV_DIM))
    masks = torch.ones(1, 28, 28, dtype=torch.bool)
    boxes = Boxes(torch.tensor([[0.0, 0, 28, 28]]))
    instances = Instances((28, 28), gt_masks=BitMasks(masks), proposal_boxes=boxes, gt_classes=torch.tensor([1]))
    with EventStorage(), traced() as trace:
        sum(head(torch.randn(1, 256, 14, 14), [instances]).values()).backward()
    assert 5 < len(trace.files) <= 18, sorted(trace.files)
