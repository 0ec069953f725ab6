"""Optimizers by name."""

import torch
from detectron2.config import CfgNode
from detectron2.solver import build_optimizer as build_sgd
from detectron2.solver.build import get_default_optimizer_params, maybe_add_gradient_clipping
from torch import nn

ADAPTIVE = {"Adam": torch.optim.Adam, "AdamW": torch.optim.AdamW}
OPTIMIZERS = ("SGD", *ADAPTIVE)


def check_optimizer(cfg: CfgNode) -> None:
    """Check SOLVER.OPTIMIZER.

    Raises:
        ValueError: an unknown name.
    """
    if cfg.SOLVER.OPTIMIZER not in OPTIMIZERS:
        raise ValueError(f"SOLVER.OPTIMIZER is {cfg.SOLVER.OPTIMIZER!r}; allowed: {', '.join(OPTIMIZERS)}")


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of SOLVER.OPTIMIZER, with detectron2's parameter groups and gradient clipping.

    Raises:
        ValueError: an unknown name.
    """
    check_optimizer(cfg)
    if cfg.SOLVER.OPTIMIZER == "SGD":
        return build_sgd(cfg, model)
    groups = get_default_optimizer_params(
        model,
        base_lr=cfg.SOLVER.BASE_LR,
        weight_decay_norm=cfg.SOLVER.WEIGHT_DECAY_NORM,
        bias_lr_factor=cfg.SOLVER.BIAS_LR_FACTOR,
        weight_decay_bias=cfg.SOLVER.WEIGHT_DECAY_BIAS,
    )
    optimizer = ADAPTIVE[cfg.SOLVER.OPTIMIZER]
    return maybe_add_gradient_clipping(
        cfg, optimizer(groups, lr=cfg.SOLVER.BASE_LR, weight_decay=cfg.SOLVER.WEIGHT_DECAY)
    )


def check_same_optimizer(optimizer: torch.optim.Optimizer, state: dict, name: str) -> None:
    """Check that a checkpoint's optimizer state is one of this kind and this model.

    Args:
        state: of an optimizer's `state_dict`.
        name: SOLVER.OPTIMIZER, for the message.

    Raises:
        ValueError: names the key.
    """
    ours, theirs = optimizer.state_dict()["param_groups"], state["param_groups"]
    telling = ("momentum", "betas", "decoupled_weight_decay")
    described = [[[key for key in telling if group.get(key)] + [len(group["params"])] for group in groups]
                 for groups in (ours, theirs)]  # fmt: skip
    if described[0] != described[1]:
        raise ValueError(
            f"SOLVER.OPTIMIZER is {name!r}, but the checkpoint to resume from is of another optimizer, or of other "
            "parameter groups: go on with the settings that it began with"
        )
