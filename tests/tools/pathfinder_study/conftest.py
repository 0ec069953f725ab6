"""A repository of configs, records, two checkpoints and an evaluation of the toy model, with the report on it."""

import json

import cv2
import numpy as np
import pytest
import torch
from helpers.paths import ROOT
from helpers.study_records import write_records

from tools.pathfinder_study.panoptic_results import RESULTS
from tools.pathfinder_study.report import write_report

RUNS = ("hgru_bptt", "hgru_crbp", "ff2", "hgru_tbptt", "convlstm_bptt", "pf9s_bptt")


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("repository")
    (root / "configs").symlink_to(ROOT / "configs")
    folder = root / "tools/pathfinder_study/results/pathfinder_small"
    write_records(folder / "runs", RUNS)
    (folder / "checkpoints").mkdir()
    for run in ("hgru_bptt", "hgru_crbp"):
        model = build(folder / "runs" / f"{run}_s0.json", root)
        with torch.no_grad():  # weights that find something
            model.sem_seg_head.predictor.weight.mul_(200)
            model.sem_seg_head.predictor.bias.zero_()
        torch.save({"model": model.state_dict()}, folder / f"checkpoints/{run}_s0.pth")
    (root / RESULTS / "panoptic_toy").mkdir()
    (root / RESULTS / "panoptic_toy/quality_per_step.csv").write_text(
        "t,PQ,SQ,RQ,PQ_th,PQ_st,mask AP\n1,10.0,50.0,20.0,5.0,15.0,\n10,80.0,85.0,90.0,75.0,90.0,55.0\n"
    )
    (root / RESULTS / "panoptic_toy/results.json").write_text(
        json.dumps({"panoptic_seg": {"PQ": 82.05, "PQ_th": 73.21, "PQ_st": 93.1}, "machine": "another processor"})
    )
    (root / RESULTS / "panoptic_toy/side_by_side").mkdir()
    cv2.imwrite(
        str(root / RESULTS / "panoptic_toy/side_by_side/000007.jpg"),
        np.full((10, 20, 3), 90, np.uint8),
    )
    write_report(folder, root)
    return root


def build(path, root):
    from detectron2.config import get_cfg
    from detectron2.modeling import build_model

    from crbp_d2 import add_crbp_config

    cfg = get_cfg()
    add_crbp_config(cfg)
    cfg.merge_from_file(str(root / json.loads(path.read_text())["config"]))
    cfg.MODEL.DEVICE = "cpu"
    torch.manual_seed(0)
    return build_model(cfg)
