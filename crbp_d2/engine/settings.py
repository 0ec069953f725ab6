"""What detectron2's keys may be, checked before anything is built."""

import argparse
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY, SEM_SEG_HEADS_REGISTRY
from detectron2.modeling.proposal_generator import PROPOSAL_GENERATOR_REGISTRY
from detectron2.modeling.roi_heads import (
    ROI_BOX_HEAD_REGISTRY,
    ROI_HEADS_REGISTRY,
    ROI_MASK_HEAD_REGISTRY,
    StandardROIHeads,
)
from detectron2.utils import comm

from crbp_d2.suggestions import did_you_mean

from .optimizer import FULL_MODEL, OPTIMIZERS

# value -> whether it is allowed, and what is.
Rule = tuple[Callable[[Any], bool], str]

SCHEDULERS = ("WarmupMultiStepLR", "WarmupCosineLR", "WarmupStepWithFixedGammaLR")
# detectron2 has others, but no keys for their settings.
SAMPLERS = ("TrainingSampler", "RepeatFactorTrainingSampler")


def _whole(least: int, most: float = math.inf) -> Rule:
    text = f"whole numbers from {least}" + (f" to {most}" if most < math.inf else "")
    return lambda value: isinstance(value, int) and least <= value <= most, text


def _real(least: float, *, above: bool = False, below: float = math.inf) -> Rule:
    text = f"finite numbers {'above' if above else 'from'} {least}" + (f", below {below}" if below < math.inf else "")
    return (
        lambda value: isinstance(value, int | float) and (least < value if above else least <= value) and value < below,
        text,
    )


def _one_of(names: Iterable[str]) -> Rule:
    names = list(names)
    return lambda value: value in names, ", ".join(names)


def _every(rule: Rule, *, count: int = 1) -> Rule:
    holds, text = rule
    return lambda values: len(values) >= count and all(map(holds, values)), f"at least {count} of {text}"


def _registered(registry) -> Rule:
    return _one_of(sorted(name for name, _ in registry))


SIZE = _whole(1)
# Of both training and evaluation.
COMMON: dict[str, Rule] = {
    "OUTPUT_DIR": (lambda value: bool(value.strip()), "the path of a folder"),
    "SEED": (lambda value: value < 2**32 - 2**16, "whole numbers below 2**32 - 2**16; a negative one: drawn anew"),
    "DATALOADER.NUM_WORKERS": _whole(0),
    "MODEL.META_ARCHITECTURE": _registered(META_ARCH_REGISTRY),
    "MODEL.BACKBONE.NAME": _registered(BACKBONE_REGISTRY),
    "MODEL.SEM_SEG_HEAD.NAME": _registered(SEM_SEG_HEADS_REGISTRY),
    "MODEL.PIXEL_MEAN": _every((lambda value: math.isfinite(value), "finite numbers")),
    "MODEL.PIXEL_STD": _every(_real(0, above=True)),
    "INPUT.MIN_SIZE_TEST": _whole(0),
    "INPUT.MAX_SIZE_TEST": SIZE,
    "TEST.IMS_PER_BATCH": SIZE,
    "TEST.PICTURES": _whole(0),
    "TEST.DETECTIONS_PER_IMAGE": SIZE,
}
ROI_MODELS = ("GeneralizedRCNN", "PanopticFPN", "RecurrentPanopticFPN")
ROI_RULES: dict[str, Rule] = {
    "MODEL.PROPOSAL_GENERATOR.NAME": _registered(PROPOSAL_GENERATOR_REGISTRY),
    "MODEL.ROI_HEADS.NAME": _registered(ROI_HEADS_REGISTRY),
    "MODEL.ROI_MASK_HEAD.NAME": _registered(ROI_MASK_HEAD_REGISTRY),
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": SIZE,
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE": SIZE,
}
# Of RoI heads that build a box head by its name: Res5ROIHeads of the C4 models have the backbone's last stage for one.
BOX_HEAD_RULES: dict[str, Rule] = {"MODEL.ROI_BOX_HEAD.NAME": _registered(ROI_BOX_HEAD_REGISTRY)}
TRAINING: dict[str, Rule] = {
    "SOLVER.MAX_ITER": SIZE,
    "SOLVER.IMS_PER_BATCH": SIZE,
    "SOLVER.CHECKPOINT_PERIOD": SIZE,
    "SOLVER.OPTIMIZER": _one_of(OPTIMIZERS),
    "SOLVER.BASE_LR": _real(0, above=True),
    "SOLVER.BASE_LR_END": _real(0),
    "SOLVER.MOMENTUM": _real(0, below=1),
    "SOLVER.WEIGHT_DECAY": _real(0),
    "SOLVER.WEIGHT_DECAY_NORM": (lambda value: value is None or _real(0)[0](value), "finite numbers from 0, or None"),
    "SOLVER.WEIGHT_DECAY_BIAS": (lambda value: value is None or _real(0)[0](value), "finite numbers from 0, or None"),
    "SOLVER.BIAS_LR_FACTOR": _real(0),
    "SOLVER.GAMMA": _real(0, above=True),
    "SOLVER.LR_SCHEDULER_NAME": _one_of(SCHEDULERS),
    "SOLVER.STEPS": (
        lambda values: all(isinstance(v, int) and v >= 1 for v in values) and list(values) == sorted(set(values)),
        "whole numbers from 1 that rise",
    ),
    "SOLVER.WARMUP_ITERS": _whole(0),
    "SOLVER.WARMUP_FACTOR": _real(0),
    "SOLVER.WARMUP_METHOD": _one_of(("constant", "linear")),
    "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": _one_of(("norm", "value", FULL_MODEL)),
    "SOLVER.CLIP_GRADIENTS.CLIP_VALUE": _real(0, above=True),
    "SOLVER.CLIP_GRADIENTS.NORM_TYPE": (lambda value: value > 0, "numbers above 0"),
    "SOLVER.REFERENCE_WORLD_SIZE": _whole(0),
    "DATALOADER.SAMPLER_TRAIN": _one_of(SAMPLERS),
    "INPUT.MIN_SIZE_TRAIN": _every(_whole(0)),
    "INPUT.MAX_SIZE_TRAIN": SIZE,
    "TEST.EVAL_PERIOD": _whole(0),
    "TEST.VALIDATION_IMAGES": _whole(0),
    "SOLVER.ACCUMULATE": SIZE,
    "SOLVER.AMP.DTYPE": _one_of(("float16", "bfloat16")),
    "SOLVER.EMA.DECAY": _real(0, below=1),
    "TEST.PRECISE_BN.NUM_ITER": SIZE,
}


def check_settings(cfg: CfgNode, *, train: bool = True, processes: int | None = None) -> None:
    """Check every key of the tables above, and that they go with one another and with the machine.

    Args:
        processes: that will share a batch; None: as many as there are.

    Raises:
        ValueError: one line: the key, its value and what is allowed.
    """
    _check_device(cfg)
    has_rois = cfg.MODEL.META_ARCHITECTURE in ROI_MODELS
    rules = COMMON | (ROI_RULES if has_rois else {}) | (TRAINING if train else {})
    if has_rois and _builds_a_box_head(cfg.MODEL.ROI_HEADS.NAME):
        rules |= BOX_HEAD_RULES
    for key, (holds, allowed) in rules.items():
        value = _value(cfg, key)
        if not _holds(holds, value):
            raise ValueError(f"{key} is {value!r}; allowed: {allowed}{did_you_mean(value, allowed.split(', '))}")
    mean, std = cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD
    if len(mean) != len(std):
        raise ValueError(f"MODEL.PIXEL_STD has {len(std)} values, but MODEL.PIXEL_MEAN {len(mean)}: {std} and {mean}")
    if not train:
        return
    if not cfg.DATASETS.TRAIN:
        raise ValueError("DATASETS.TRAIN is (); training needs a data set (--eval-only goes without)")
    if cfg.TEST.BEST_METRIC and not (cfg.TEST.EVAL_PERIOD and cfg.DATASETS.TEST):
        raise ValueError(
            f"TEST.BEST_METRIC is {cfg.TEST.BEST_METRIC!r}, but TEST.EVAL_PERIOD is {cfg.TEST.EVAL_PERIOD} and "
            f"DATASETS.TEST {tuple(cfg.DATASETS.TEST)}: a best checkpoint needs evaluations to choose by"
        )
    processes = processes or comm.get_world_size()
    if cfg.SOLVER.IMS_PER_BATCH % processes:
        raise ValueError(
            f"SOLVER.IMS_PER_BATCH is {cfg.SOLVER.IMS_PER_BATCH}, which {processes} processes cannot share evenly"
        )


def check_evaluation(cfg: CfgNode, args: argparse.Namespace, resumes: bool) -> None:
    """Check that `--eval-only` has something to evaluate, and trained weights unless `--untrained` goes without.

    Args:
        resumes: the weights come from a checkpoint in OUTPUT_DIR.

    Raises:
        ValueError: names the key.
    """
    if not cfg.DATASETS.TEST:
        raise ValueError("DATASETS.TEST is (), so --eval-only has nothing to evaluate")
    if cfg.MODEL.WEIGHTS or resumes or getattr(args, "untrained", False):
        return
    note = f", and OUTPUT_DIR {cfg.OUTPUT_DIR} holds no checkpoint for --resume" if args.resume else ""
    raise ValueError(
        f"MODEL.WEIGHTS is ''{note}, so --eval-only would evaluate random weights: name a file, or add --untrained if "
        "that is what you want"
    )


def _check_device(cfg: CfgNode) -> None:
    try:
        device = torch.device(cfg.MODEL.DEVICE)
    except RuntimeError as error:
        raise ValueError(f"MODEL.DEVICE is {cfg.MODEL.DEVICE!r}; allowed: cpu, cuda, cuda:1 and so on") from error
    kind = device.type
    if kind == "cuda" and torch.cuda.is_available() and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"MODEL.DEVICE is {cfg.MODEL.DEVICE!r}, but this machine has {torch.cuda.device_count()} GPUs")
    if (
        cfg.SOLVER.AMP.ENABLED
        and cfg.SOLVER.AMP.DTYPE != "bfloat16"
        and (kind != "cuda" or not torch.cuda.is_available())
    ):
        raise ValueError(
            f"SOLVER.AMP.ENABLED is True, which needs a CUDA device with SOLVER.AMP.DTYPE "
            f"{cfg.SOLVER.AMP.DTYPE!r}; MODEL.DEVICE is {cfg.MODEL.DEVICE!r} (DTYPE 'bfloat16' runs there too)"
        )


def _builds_a_box_head(roi_heads: str) -> bool:
    known = dict(iter(ROI_HEADS_REGISTRY))
    return roi_heads in known and issubclass(known[roi_heads], StandardROIHeads)


def _holds(rule: Callable[[object], bool], value: object) -> bool:
    try:
        return rule(value)
    except TypeError:  # a word in a list of numbers, say
        return False


def _value(cfg: CfgNode, key: str) -> object:
    for part in key.split("."):
        cfg = cfg[part]
    return cfg
