"""The pages: their code and commands run, their links lead somewhere, and they keep to a form."""

import fnmatch
import importlib.util
import os
import re

import pytest
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from helpers.panoptic_set import write_set
from helpers.paths import ROOT

from crbp_d2 import add_crbp_config
from crbp_d2.cells import CELLS
from crbp_d2.model_zoo import config_names
from crbp_d2.modeling import build_recurrence
from crbp_d2.recurrence import PENALTIES, RULES, SOLVERS
from tools.docs_check import PAGES, check_command, commands

TEXTS = sorted({path for pattern in (*PAGES, "CHANGELOG.md") for path in ROOT.glob(pattern)})
COMMANDS = sorted({command for path in TEXTS for command in commands(path)})


def name(path):
    return path.relative_to(ROOT).as_posix()


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


@pytest.mark.parametrize("path", TEXTS, ids=name)
def test_tools_modules_and_configs_that_a_page_names_are_there(path):
    text = path.read_text()
    for tool in set(re.findall(r"tools/\w+\.py", text)):
        tool = ROOT / tool
        assert os.access(tool, os.X_OK) and tool.read_text().startswith("#!/usr/bin/env python\n"), tool
    for config in set(re.findall(r"configs/[\w/]+\.(?:yaml|py)", text)):
        assert (ROOT / config).exists(), config
    for module in set(re.findall(r"python -m ((?:tools|crbp_d2)[\w.]*\w)", text)):
        assert importlib.util.find_spec(module), module


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_one_that_its_program_takes(command):
    check_command(command)


@pytest.mark.parametrize(
    "command",
    ["make tea", "python -m tools.tea", "tools/train_net.py --config-file configs/panoptic_R50_crbp.yaml MODEL.TEA 1",
     "tools/predict.py --run x a.jpg", "tools/generate_pathfinder.py --spec PF14 --tea", "tools/train_net.py --tea"],
)  # fmt: skip
def test_a_command_that_no_program_takes_is_found(command):
    with pytest.raises(ValueError, match=re.escape(command)):
        check_command(command)


def anchors(text):
    titles = re.findall(r"^#+ (.*)$", text, flags=re.M)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", TEXTS, ids=name)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if re.match(r"https?://", target):
            continue
        file, _, anchor = target.partition("#")
        found = (path.parent / file).resolve() if file else path
        assert found.exists(), target
        assert not anchor or anchor in anchors(found.read_text()), target


@pytest.mark.parametrize("path", TEXTS, ids=name)
def test_lines_and_cells_are_short(path):
    for line in path.read_text().splitlines():
        row = line.startswith("|")
        cells = [cell.strip(" :-") for cell in line.split("|")] if row else [line]
        assert max(map(len, cells)) <= (160 if row else 120), line


def test_the_readme_is_one_page():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 100


def expanded(pattern):
    """All names of a pattern with {a,b}."""
    if not (braces := re.search(r"\{([^{}]*)\}", pattern)):
        return [pattern]
    parts = braces[1].split(",")
    return [name for part in parts for name in expanded(pattern[: braces.start()] + part + pattern[braces.end() :])]


def test_every_config_stands_in_a_table_of_getting_started():
    cells = re.findall(r"^\| (`[^|]*) \|", (ROOT / "docs/GETTING_STARTED.md").read_text(), flags=re.M)
    patterns = [
        name for cell in cells for part in re.findall(r"`([^`]+\.(?:yaml|py))`", cell) for name in expanded(part)
    ]
    names = {name.removeprefix("pathfinder/") for name in config_names()}
    assert [name for name in sorted(names) if not any(fnmatch.fnmatch(name, p) for p in patterns)] == []
    assert [p for p in patterns if not any(fnmatch.fnmatch(name, p) for name in names)] == []


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
