"""Configs of seconds."""

import pytest
from detectron2.config import get_cfg
from helpers.paths import ROOT

from crbp_d2 import add_crbp_config


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
