"""The code in the documentation runs."""

import os
import re

import pytest
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from helpers.panoptic_set import write_set
from helpers.paths import ROOT

from crbp_d2 import add_crbp_config
from crbp_d2.cells import CELLS
from crbp_d2.modeling import build_recurrence
from crbp_d2.recurrence import PENALTIES, RULES, SOLVERS


def blocks(page):
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), flags=re.S)


@pytest.fixture
def tables():
    """Rows that a page adds are taken out again."""
    before = [(table, dict(table)) for table in (CELLS, SOLVERS, PENALTIES, RULES)]
    yield
    for table, rows in before:
        table.clear()
        table.update(rows)


def test_extending_runs_and_its_names_work_in_a_config(tables):
    code = blocks("docs/EXTENDING.md")
    assert len(code) == 8
    namespace = {}
    for block in code:
        exec(block, namespace)
    cfg = get_cfg()
    add_crbp_config(cfg)
    cfg.MODEL.RECURRENCE.CELL.NAME = "LeakyCell"
    cfg.MODEL.RECURRENCE.RULE = "one_step"
    cfg.MODEL.RECURRENCE.SOLVER.NAME = "HeavyBall"
    recurrence = build_recurrence(cfg, 8)
    assert type(recurrence.cell).__name__ == "LeakyCell" and type(recurrence.solver).__name__ == "HeavyBall"
    assert recurrence.gradient.transpose.num_terms == 0
    cfg.MODEL.RECURRENCE.RULE = "crbp"
    cfg.MODEL.RECURRENCE.PENALTY.NAME = "Frobenius"
    assert type(build_recurrence(cfg, 8).penalty).__name__ == "FrobeniusPenalty"


def test_getting_started_registers_data_sets_of_ones_own(tmp_path, monkeypatch):
    write_set(tmp_path)
    (tmp_path / "mine").mkdir()
    for name, source in (("panoptic_train.json", "panoptic.json"), ("panoptic_train", "panoptic"), ("train", "images")):
        (tmp_path / "mine" / name).symlink_to(tmp_path / source)
    monkeypatch.chdir(tmp_path)
    before = set(DatasetCatalog.list())
    code = blocks("docs/GETTING_STARTED.md")
    assert len(code) == 2
    for block in code:
        exec(block, {})
    added = set(DatasetCatalog.list()) - before
    assert added == {"mine_train", *(f"pathfinder_PF18smooth_{split}" for split in ("train", "val", "stream"))}
    for name in added:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def test_readme_recurrence_in_plain_pytorch():
    (plain,) = [block for block in blocks("README.md") if "learning_rule" in block]
    import torch

    namespace = {"drive": torch.randn(2, 64, 6, 6), "task_loss": lambda h: h.square().mean()}
    exec(plain, namespace)
    namespace["loss"].backward()
    assert all(p.grad.isfinite().all() for p in namespace["recurrence"].parameters())


def test_readme_head_in_two_lines():
    (two_lines,) = [block for block in blocks("README.md") if "ROI_MASK_HEAD" in block]
    cfg = get_cfg()
    exec(two_lines, {"cfg": cfg})
    assert cfg.MODEL.ROI_MASK_HEAD.NAME == "RecurrentMaskHead" and cfg.MODEL.RECURRENCE.STEPS == 20


@pytest.mark.parametrize(
    "page", sorted(path.relative_to(ROOT).as_posix() for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
)
def test_tools_that_a_page_names_can_be_called_as_it_says(page):
    text = (ROOT / page).read_text()
    for tool in set(re.findall(r"tools/\w+\.py", text)):
        path = ROOT / tool
        assert os.access(path, os.X_OK) and path.read_text().startswith("#!/usr/bin/env python\n"), tool
    for config in set(re.findall(r"configs/[\w/]+\.yaml", text)):
        assert (ROOT / config).exists(), config


def test_recipes_run_one_after_the_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    before = {name: DatasetCatalog[name] for name in DatasetCatalog.list() if name.startswith("toy_panoptic")}
    forget = [*before, *(f"{name}_as_files" for name in before)]
    kept = {name: MetadataCatalog.get(name) for name in before}
    for name in forget:
        if name in DatasetCatalog.list():
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)
    namespace: dict = {"__name__": "recipes"}
    try:
        for block in blocks("docs/RECIPES.md"):
            exec(block, namespace)
    finally:
        for name in [name for name in DatasetCatalog.list() if name.startswith("toy_panoptic")]:
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)
        for name, load in before.items():
            DatasetCatalog.register(name, load)
            MetadataCatalog[name] = kept[name]
    output = tmp_path / "output/panoptic_R18_crbp_toy"
    assert (output / "model_best.pth").exists() and (output / "model_ema.pth").exists()
    assert namespace["segmentation"].shape == (96, 96)
    assert not namespace["trainer"].model.backbone.bottom_up.stem.conv1.weight.requires_grad
    assert namespace["steps"].shape[1:] == (20, 20)
    assert namespace["model"].sem_seg_head.recurrence.last_stats.steps > 0
