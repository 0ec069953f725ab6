"""Configs and models by name."""

from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode
from helpers.paths import ROOT
from omegaconf import DictConfig

from crbp_d2 import model_zoo

INSTANT = "quick/pathfinder_hgru_crbp_instant_test.yaml"


def test_every_config_has_a_name_and_loads():
    files = [path for suffix in (".yaml", ".py") for path in (ROOT / "configs").rglob(f"*{suffix}")]
    names = {path.relative_to(ROOT / "configs").as_posix() for path in files if path.parent.name != "bases"}
    assert set(model_zoo.config_names()) == names and len(names) > 50
    for name in names:
        assert Path(model_zoo.get_config_file(name)).samefile(ROOT / "configs" / name)
        assert isinstance(model_zoo.get_config(name), DictConfig if name.endswith(".py") else CfgNode)


def test_options_are_merged():
    assert model_zoo.get_config("panoptic_R50_crbp.yaml", "MODEL.RECURRENCE.STEPS", 7).MODEL.RECURRENCE.STEPS == 7
    lazy = model_zoo.get_config("panoptic_R50_crbp.py", "train.max_iter=3")
    assert lazy.train.max_iter == 3
    with pytest.raises(ValueError, match="STEPPS.*'MODEL.RECURRENCE.STEPS'"):
        model_zoo.get_config("panoptic_R50_crbp.yaml", "MODEL.RECURRENCE.STEPPS", 7)


@pytest.mark.parametrize(
    "name,meant",
    [
        ("panoptic_R50_crbp", "panoptic_R50_crbp.yaml"),
        ("quick/pathfinder_hgru_crbp_instant.yaml", INSTANT),
        ("../README.md", ""),
        ("../configs/panoptic_R50_crbp.yaml", ""),
        (str(ROOT / "tools/pathfinder_study/results/pathfinder_small/checkpoints/ff2.yaml"), ""),
        ("bases", ""),
    ],
)
def test_an_unknown_name_is_said_with_the_one_that_was_meant(name, meant):
    with pytest.raises(ValueError) as unknown:
        model_zoo.get_config_file(name)
    assert repr(name) in str(unknown.value) and meant in str(unknown.value) and "\n" not in str(unknown.value)


def test_a_model_with_the_weights_of_a_run_or_of_a_file(tmp_path):
    torch.manual_seed(0)
    options = ("OUTPUT_DIR", str(tmp_path / "run"))
    model = model_zoo.get(INSTANT, *options, device="cpu")
    assert model.training and next(model.parameters()).device.type == "cpu"
    with pytest.raises(FileNotFoundError, match=f"run holds no weights.*crbp-train --config-file .*{INSTANT}"):
        model_zoo.get(INSTANT, *options, trained=True)
    (tmp_path / "run").mkdir()
    torch.save({"model": model.state_dict()}, tmp_path / "run/model_final.pth")
    for settings in ({"trained": True}, {"weights": str(tmp_path / "run/model_final.pth")}):
        loaded = model_zoo.get(INSTANT, *options, **settings).state_dict()
        assert all(torch.equal(value, loaded[name]) for name, value in model.state_dict().items())
    with pytest.raises(FileNotFoundError, match="nothing.pth"):
        model_zoo.get(INSTANT, weights=str(tmp_path / "nothing.pth"))
