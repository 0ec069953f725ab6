"""Optimizers by name."""

import contextlib
import functools
import logging
from collections.abc import Iterator

import torch
from detectron2.config import CfgNode
from detectron2.solver import build_optimizer as build_sgd
from detectron2.solver.build import get_default_optimizer_params
from torch import nn

from crbp_d2.utils.errors import SettingError

ADAPTIVE = {"Adam": torch.optim.Adam, "AdamW": torch.optim.AdamW}
# Settings of a parameter group that a resumed run takes from its config -> their keys.
RESUMED = {"initial_lr": "BASE_LR", "momentum": "MOMENTUM", "weight_decay": "WEIGHT_DECAY"}


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of SOLVER.OPTIMIZER, with detectron2's parameter groups and gradient clipping.

    Raises:
        SettingError: an unknown name.
    """
    if cfg.SOLVER.OPTIMIZER not in ("SGD", *ADAPTIVE):
        raise SettingError("SOLVER.OPTIMIZER", cfg.SOLVER.OPTIMIZER, ("SGD", *ADAPTIVE))
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
    by one norm over all of them. Parameters without a gradient are skipped (detectron2 raises when clipping by value).

    Args:
        settings: SOLVER.CLIP_GRADIENTS.
    """
    clip = functools.partial(_clip, kind=settings.CLIP_TYPE, value=settings.CLIP_VALUE, norm_type=settings.NORM_TYPE)
    optimizer.register_step_pre_hook(clip)


def _clip(optimizer: torch.optim.Optimizer, args: tuple, kwargs: dict, *, kind: str, value: float, norm_type: float):
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    if kind == "full_model":
        nn.utils.clip_grad_norm_(parameters, value, norm_type)
        return
    for parameter in parameters:
        if kind == "value":
            nn.utils.clip_grad_value_(parameter, value)
        else:
            nn.utils.clip_grad_norm_(parameter, value, norm_type)


@contextlib.contextmanager
def resume_optimizer(
    optimizer: torch.optim.Optimizer, scheduler: torch.optim.lr_scheduler.LRScheduler, state: dict
) -> Iterator[None]:
    """Keep the config's learning rate, momentum and weight decay while the block loads a checkpoint, and log changes.

    Args:
        optimizer, scheduler: those of the run, as the config says.
        state: the optimizer's state in the checkpoint.

    Raises:
        ValueError: a state of another kind of optimizer or of other parameter groups; names the key.
    """
    kinds = [[(_kind(group), len(group["params"])) for group in groups]
             for groups in (optimizer.param_groups, state["param_groups"])]  # fmt: skip
    if kinds[0] != kinds[1]:
        raise ValueError(
            f"SOLVER.OPTIMIZER is {type(optimizer).__name__!r}, but the checkpoint to resume from has another one, or "
            "other parameter groups: resume with the settings that it began with"
        )
    own = [{key: group[key] for key in RESUMED if key in group} for group in optimizer.param_groups]
    yield
    changes = {}
    for group, settings in zip(optimizer.param_groups, own, strict=True):
        for key, new in settings.items():
            old = group.get(key, new)
            if old == new:
                continue
            changes.setdefault(key, (old, new))
            group[key] = new
            if key == "initial_lr":
                group["lr"] = group["lr"] * new / old if old else new
    if "initial_lr" in changes:
        scheduler.base_lrs = [settings["initial_lr"] for settings in own]
    for key, (old, new) in changes.items():
        logging.getLogger(__name__).warning(
            "SOLVER.%s is %g, in the checkpoint %g: the run continues with %g", RESUMED[key], new, old, new
        )


def _kind(group: dict) -> tuple:
    return "momentum" in group, "betas" in group, group.get("decoupled_weight_decay", False)
