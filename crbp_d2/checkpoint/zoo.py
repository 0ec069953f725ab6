"""Models of the configs by name, with their weights."""

import torch
from detectron2.config import CfgNode, instantiate
from detectron2.modeling import build_model
from torch import nn

from crbp_d2.model_zoo import get_config, get_config_file
from crbp_d2.modeling.compiled import check_compiled_part

from .loading import Checkpointer, check_weights, weights_in


def get(name: str, *opts: object, trained: bool = False, weights: str = "", device: str | None = None) -> nn.Module:
    """A model with its weights, in training mode as detectron2's model_zoo.get returns it.

    Args:
        name, opts: see get_config.
        trained: load the result of a training by this config from its OUTPUT_DIR, else MODEL.WEIGHTS, with which a
            training begins ("": random weights).
        weights: a file, URL or detectron2:// name to load in place of both.
        device: default: that of the config, or the CPU where there is no GPU.

    Raises:
        FileNotFoundError: missing weights.
        ValueError: see get_config; weights of another model.
    """
    cfg = get_config(name, *opts)
    lazy = not isinstance(cfg, CfgNode)
    if trained and not weights:
        try:
            weights = weights_in(cfg.train.output_dir if lazy else cfg.OUTPUT_DIR)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{error}; `crbp-train --config-file {get_config_file(name)}` makes them") from None
    weights = weights or (cfg.train.init_checkpoint if lazy else cfg.MODEL.WEIGHTS)
    if weights:
        check_weights(weights)
    device = device or (cfg.train.device if lazy else cfg.MODEL.DEVICE)
    if device.startswith("cuda") and not torch.cuda.is_available():
        device = "cpu"
    if lazy:
        model = instantiate(cfg.model).to(device)
    else:
        cfg.MODEL.DEVICE = device
        check_compiled_part(cfg)
        model = build_model(cfg)
    Checkpointer(model, complete=trained).load(weights)
    return model
