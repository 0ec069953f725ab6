"""A trained model and the images that it is measured on."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from detectron2.config import CfgNode
from detectron2.engine import default_argument_parser
from torch import nn

from crbp_d2.checkpoint.loading import Checkpointer
from crbp_d2.engine import Trainer, check_inputs, setup


@contextmanager
def trained(config_file: str, weights: str, *options: str) -> Iterator[tuple[CfgNode, nn.Module, str, Any]]:
    """Config and model of a file and its weights, name and loader of its first test set."""
    with tempfile.TemporaryDirectory() as folder:
        flags = ["--config-file", config_file, "--eval-only", "MODEL.WEIGHTS", weights, "OUTPUT_DIR", folder, *options]
        cfg = setup(default_argument_parser().parse_args(flags))
        check_inputs(cfg, train=False)
        model = Trainer.build_model(cfg)
        Checkpointer(model).load(cfg.MODEL.WEIGHTS)
        name = cfg.DATASETS.TEST[0]
        yield cfg, model, name, Trainer.build_test_loader(cfg, name)
