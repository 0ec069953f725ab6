"""Configs of seconds."""

import pytest
from detectron2.config import get_cfg
from detectron2.engine import DefaultTrainer
from helpers.paths import ROOT

from crbp_d2 import add_crbp_config
from tools.data_sets import free
from tools.soak.small_runs import register_small_sets


@pytest.fixture
def pathfinder_config():
    """pathfinder_config(*options): the quick Pathfinder config on a CPU."""

    def build(*options):
        cfg = get_cfg()
        add_crbp_config(cfg)
        cfg.merge_from_file(str(ROOT / "configs/quick/pathfinder_hgru_crbp_instant_test.yaml"))
        cfg.merge_from_list(["MODEL.DEVICE", "cpu", *options])
        return cfg

    return build


@pytest.fixture
def nothing_is_built(monkeypatch, tmp_path):
    """An error where a model is built; the working directory is an empty one."""

    def refuse(cls, cfg):
        raise AssertionError("a model was built before the input was checked")

    monkeypatch.setattr(DefaultTrainer, "build_model", classmethod(refuse))
    monkeypatch.chdir(tmp_path)


SETS = ("pathfinder_soak_train", "pathfinder_soak_val", "pathfinder_soak_stream",
        "toy_panoptic_train", "toy_panoptic_val")  # fmt: skip


@pytest.fixture(scope="module")
def small_sets(tmp_path_factory):
    free(*SETS)
    root = tmp_path_factory.mktemp("datasets")
    register_small_sets(root)
    yield root
    free(*SETS)
