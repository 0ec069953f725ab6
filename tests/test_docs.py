"""The pages: code, commands, links, generated parts and form."""

import dataclasses
import fnmatch
import importlib.util
import inspect
import os
import re
from collections import Counter

import pytest
from detectron2 import model_zoo
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import DefaultTrainer
from detectron2.modeling import build_model
from helpers.panoptic_set import write_set
from helpers.paths import ROOT

from crbp_d2 import add_crbp_config
from crbp_d2.cells import CELLS
from crbp_d2.data import register_builtin
from crbp_d2.model_zoo import config_names
from crbp_d2.modeling import RecurrentMaskHead, build_recurrence
from crbp_d2.modeling.build import ARGUMENTS
from crbp_d2.recurrence import PENALTIES, RULES, SOLVERS, RecurrenceOutput
from crbp_d2.recurrence.interfaces import SampleStats
from tools import api_page
from tools.docs_check import PAGES, check_command, commands
from tools.page import generated
from tools.pathfinder_study.records import load_study
from tools.pathfinder_study.report import readme_table
from tools.pathfinder_study.runs import SCALES

TEXTS = sorted({path for pattern in (*PAGES, "CHANGELOG.md") for path in ROOT.glob(pattern)})
COMMANDS = sorted({command for path in TEXTS for command in commands(path)})


def name(path):
    return path.relative_to(ROOT).as_posix()


def blocks(page):
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), flags=re.S)


@pytest.fixture
def tables():
    """The tables without the rows that a page adds."""
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


def test_getting_started_registers_data_sets(tmp_path, monkeypatch):
    write_set(tmp_path)
    (tmp_path / "mine").mkdir()
    for name, source in (("panoptic_train.json", "panoptic.json"), ("panoptic_train", "panoptic"), ("train", "images")):
        (tmp_path / "mine" / name).symlink_to(tmp_path / source)
    monkeypatch.chdir(tmp_path)
    register_builtin()
    before = set(DatasetCatalog.list())
    code = blocks("docs/GETTING_STARTED.md")
    assert len(code) == 3
    for block in code:
        exec(block, {})
    added = set(DatasetCatalog.list()) - before
    assert added == {"mine_train", *(f"pathfinder_PF18smooth_{split}" for split in ("train", "val", "stream"))}
    for name in added:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@pytest.mark.parametrize("page", ["README.md", "docs/PYTORCH.md"])
def test_plain_pytorch_trains_every_parameter(page):
    namespace = {}
    for block in blocks(page):
        if "cfg" not in block:
            exec(block, namespace)
    used = [*namespace["recurrence"].parameters(), *namespace["readout"].parameters()]
    assert all(p.grad.isfinite().all() for p in used) and len(namespace["recurrence"](namespace["drive"]).state) == 1


def rows(page, title):
    """First cell -> the others, in the tables of a section."""
    section = (ROOT / page).read_text().split(f"## {title}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    return {cells[0]: cells[1:] for cells in ([cell.strip(" `") for cell in x.split("|")[1:-1]] for x in lines)}


def test_pytorch_page_has_every_rule_setting_and_field():
    table = rows("docs/PYTORCH.md", "learning_rule")
    keys = {argument: key.removeprefix("MODEL.RECURRENCE.") for key, argument in ARGUMENTS.items()}
    parts = [part for group in (RULES, SOLVERS, PENALTIES) for part in group.values()]
    arguments = {name: p.default for part in parts for name, p in inspect.signature(part).parameters.items()}
    settings = arguments.keys() - {"cell", "steps", "solver", "penalty"}
    assert set(table) == {*RULES, *settings, "solver", "penalty", "early_stop"}
    assert {name: table[name][-1] for name in table.keys() - RULES} == {n: keys[n] for n in table.keys() - RULES}
    for name in settings:
        shown = table[name][0].split(":")[0]
        assert shown == arguments[name] or float(shown) == arguments[name], name
    fields = {field.name for field in dataclasses.fields(RecurrenceOutput)} | {*SampleStats._fields} - {"growing"}
    assert fields <= set(rows("docs/PYTORCH.md", "Output"))


def test_fewer_gpus_are_scaled_as_by_detectron2():
    section = (ROOT / "docs/GETTING_STARTED.md").read_text().split("### Fewer GPUs")[1].split("###")[0]
    table = [[c.strip() for c in line.split("|")[1:-1]] for line in section.splitlines() if re.match(r"\| \d", line)]
    for gpus, batch, rate, steps, iterations, parts in table:
        cfg = get_cfg()
        add_crbp_config(cfg)
        cfg.merge_from_file(str(ROOT / "configs/panoptic_R50_crbp.yaml"))
        cfg.SOLVER.REFERENCE_WORLD_SIZE = 8
        solver = DefaultTrainer.auto_scale_workers(cfg, int(gpus)).SOLVER
        assert (solver.IMS_PER_BATCH, str(solver.STEPS), solver.MAX_ITER) == (int(batch), steps, int(iterations))
        assert (
            float(rate) == solver.BASE_LR
            and parts.strip("`") == (f"SOLVER.ACCUMULATE {8 // int(gpus)}", "")[gpus == "8"]
        )


def test_generated_parts_are_current():
    assert api_page.PAGE.read_text() == api_page.api_page(), "run `make pages`"
    study = load_study(ROOT / SCALES["small"].folder / "runs")
    assert generated((ROOT / "README.md").read_text(), "rules") == readme_table(study, ROOT)


def test_readme_head_in_two_lines():
    (two_lines,) = [block for block in blocks("README.md") if "cfg" in block]
    cfg = get_cfg()
    cfg.merge_from_file(model_zoo.get_config_file("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"))
    exec(two_lines, {"cfg": cfg})
    cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS = "cpu", ""
    assert isinstance(build_model(cfg).roi_heads.mask_head, RecurrentMaskHead) and cfg.MODEL.RECURRENCE.STEPS == 20


@pytest.mark.parametrize("path", TEXTS, ids=name)
def test_named_tools_modules_and_configs_exist(path):
    text = path.read_text()
    for tool in set(re.findall(r"tools/\w+\.py", text)):
        tool = ROOT / tool
        assert os.access(tool, os.X_OK) and tool.read_text().startswith("#!/usr/bin/env python\n"), tool
    for config in set(re.findall(r"configs/[\w/]+\.(?:yaml|py)", text)):
        assert (ROOT / config).exists(), config
    for module in set(re.findall(r"python -m ((?:tools|crbp_d2)[\w.]*\w)", text)):
        assert importlib.util.find_spec(module), module


@pytest.mark.parametrize("command", COMMANDS)
def test_command_is_valid(command):
    check_command(command)


@pytest.mark.parametrize(
    "command",
    ["make tea", "python -m tools.tea", "tools/train_net.py --config-file configs/panoptic_R50_crbp.yaml MODEL.TEA 1",
     "tools/predict.py --run x a.jpg", "tools/generate_pathfinder.py --spec PF14 --tea", "tools/train_net.py --tea"],
)  # fmt: skip
def test_invalid_command_raises(command):
    with pytest.raises(ValueError, match=re.escape(command)):
        check_command(command)


def anchors(text):
    titles = re.findall(r"^#+ (.*)$", text, flags=re.M)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", TEXTS, ids=name)
def test_links_and_anchors_exist(path):
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


@pytest.mark.parametrize("page,limit", [("README.md", 110), ("docs/MODEL_ZOO.md", 90), ("docs/RESULTS.md", 130)])
def test_page_is_short(page, limit):
    assert len((ROOT / page).read_text().splitlines()) <= limit


@pytest.mark.parametrize("path", TEXTS, ids=name)
def test_no_long_sentence_twice(path):
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.S | re.M)
    prose = re.sub(r"^\|.*$", "\n", text, flags=re.M)
    sentences = [" ".join(part.split()) for part in re.split(r"(?<=[.:;])\s|\n\s*\n|^- ", prose, flags=re.M)]
    assert [part for part, count in Counter(sentences).items() if count > 1 and len(part) > 80] == []


def test_index_has_every_page():
    targets = re.findall(r"\]\((\w+\.md)\)", (ROOT / "docs/README.md").read_text())
    assert sorted(targets) == sorted(path.name for path in ROOT.glob("docs/*.md") if path.name != "README.md")


def expanded(pattern):
    """All names of a pattern with {a,b}."""
    if not (braces := re.search(r"\{([^{}]*)\}", pattern)):
        return [pattern]
    parts = braces[1].split(",")
    return [name for part in parts for name in expanded(pattern[: braces.start()] + part + pattern[braces.end() :])]


def test_every_config_is_in_the_model_zoo():
    page = (ROOT / "docs/MODEL_ZOO.md").read_text()
    cells = re.findall(r"^\| `([^`|]+\.(?:yaml|py))` *\|", page, flags=re.M)
    linked = re.findall(r"^\| \[[^]]*\]\(\.\./configs/([^)]+)\)", page, flags=re.M)
    patterns = [*linked, *(pattern for cell in cells for pattern in expanded(cell))]
    names = config_names()
    assert [name for name in sorted(names) if not any(fnmatch.fnmatch(name, p) for p in patterns)] == []
    assert [p for p in patterns if not any(fnmatch.fnmatch(name, p) for name in names)] == []


def test_recipes_run_one_after_the_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
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
