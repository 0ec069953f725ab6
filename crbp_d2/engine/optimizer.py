"""Optimizers by name."""

import functools

import torch
from detectron2.config import CfgNode
from detectron2.solver import build_optimizer as build_sgd
from detectron2.solver.build import get_default_optimizer_params
from torch import nn

ADAPTIVE = {"Adam": torch.optim.Adam, "AdamW": torch.optim.AdamW}
FULL_MODEL = "full_model"
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
    unclipped = cfg.clone()
    unclipped.defrost()
    unclipped.SOLVER.CLIP_GRADIENTS.ENABLED = False
    if cfg.SOLVER.OPTIMIZER == "SGD":
        optimizer = build_sgd(unclipped, model)
    else:
        groups = get_default_optimizer_params(
            model,
            base_lr=cfg.SOLVER.BASE_LR,
            weight_decay_norm=cfg.SOLVER.WEIGHT_DECAY_NORM,
            bias_lr_factor=cfg.SOLVER.BIAS_LR_FACTOR,
            weight_decay_bias=cfg.SOLVER.WEIGHT_DECAY_BIAS,
        )
        adaptive = ADAPTIVE[cfg.SOLVER.OPTIMIZER]
        optimizer = adaptive(groups, lr=cfg.SOLVER.BASE_LR, weight_decay=cfg.SOLVER.WEIGHT_DECAY)
    if cfg.SOLVER.CLIP_GRADIENTS.ENABLED:
        clip_gradients(optimizer, cfg.SOLVER.CLIP_GRADIENTS)
    return optimizer


def clip_gradients(optimizer: torch.optim.Optimizer, settings: CfgNode) -> None:
    """Clip gradients before each step: CLIP_TYPE "value" and "norm" each parameter's, as detectron2 does, "full_model"
    by one norm over all of them. Parameters without a gradient are passed over.

    (detectron2's clipping by value ends in an error there.)

    Args:
        settings: SOLVER.CLIP_GRADIENTS.
    """
    clip = functools.partial(_clip, kind=settings.CLIP_TYPE, value=settings.CLIP_VALUE, norm_type=settings.NORM_TYPE)
    optimizer.register_step_pre_hook(clip)


def _clip(optimizer: torch.optim.Optimizer, args: tuple, kwargs: dict, *, kind: str, value: float, norm_type: float):
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    if kind == FULL_MODEL:
        nn.utils.clip_grad_norm_(parameters, value, norm_type)
        return
    for parameter in parameters:
        if kind == "value":
            nn.utils.clip_grad_value_(parameter, value)
        else:
            nn.utils.clip_grad_norm_(parameter, value, norm_type)


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
            "parameter groups: resume with the settings that it began with"
        )
