"""A repository with configs, records, two checkpoints, results of the toy model, and the report on them."""

import json

import cv2
import numpy as np
import pytest
import torch
from helpers.paths import ROOT
from helpers.study_records import write_records

from tools.pathfinder_study.panoptic_results import RESULTS
from tools.pathfinder_study.records import read_record
from tools.pathfinder_study.report import write_report
from tools.pathfinder_study.unrolling import build

RUNS = ("hgru_bptt", "hgru_crbp", "ff2", "hgru_tbptt", "convlstm_bptt", "pf9s_bptt")


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("repository")
    (root / "configs").symlink_to(ROOT / "configs")
    folder = root / "tools/pathfinder_study/results/pathfinder_small"
    write_records(folder / "runs", RUNS)
    (folder / "checkpoints").mkdir()
    for run in ("hgru_bptt", "hgru_crbp"):
        torch.manual_seed(0)
        model = build(read_record(folder / "runs" / f"{run}_s0.json"), root)
        with torch.no_grad():  # weights that find something
            model.sem_seg_head.predictor.weight.mul_(200)
            model.sem_seg_head.predictor.bias.zero_()
        torch.save({"model": model.state_dict()}, folder / f"checkpoints/{run}_s0.pth")
    (root / RESULTS / "panoptic_toy/side_by_side").mkdir(parents=True)
    (root / RESULTS / "panoptic_toy/results.json").write_text(
        json.dumps({"panoptic_seg": {"PQ": 82.05, "PQ_th": 73.21, "PQ_st": 93.1}, "machine": "another processor"})
    )
    cv2.imwrite(str(root / RESULTS / "panoptic_toy/side_by_side/000007.jpg"), np.full((10, 20, 3), 90, np.uint8))
    write_report(folder, root)
    return root
