"""What detectron2's keys may be, checked before anything is built."""

import argparse
import math
from collections.abc import Callable

import torch
from detectron2.config import CfgNode
from detectron2.modeling.roi_heads import ROI_HEADS_REGISTRY, StandardROIHeads
from detectron2.utils import comm

from crbp_d2.config_file import leaves, value_of
from crbp_d2.utils.errors import did_you_mean

from .setting_rules import BOX_HEAD_RULES, COMMON, INFINITE, RETINANET, ROI_RULES, TRAINING

CONTOUR_HEADS = ("ContourSegHead", "FeedforwardContourHead")
ROI_MODELS = ("GeneralizedRCNN", "PanopticFPN", "RecurrentPanopticFPN", "ProposalNetwork")


def check_settings(cfg: CfgNode, *, train: bool = True, processes: int | None = None) -> None:
    """Check every key of `setting_rules`, and that they go with one another and with the machine.

    Args:
        processes: that will share a batch; None: as many as there are.

    Raises:
        ValueError: one line: the key, its value and what is allowed.
    """
    _check_device(cfg)
    of_model = {**dict.fromkeys(ROI_MODELS, ROI_RULES), "RetinaNet": RETINANET}
    rules = COMMON | of_model.get(cfg.MODEL.META_ARCHITECTURE, {}) | (TRAINING if train else {})
    has_rois = cfg.MODEL.META_ARCHITECTURE in ROI_MODELS
    if has_rois and _builds_a_box_head(cfg.MODEL.ROI_HEADS.NAME):
        rules |= BOX_HEAD_RULES
    for key, (rule, allowed) in rules.items():
        value = value_of(cfg, key)
        if not holds(rule, value):
            raise ValueError(f"{key} is {value!r}; allowed: {allowed}{did_you_mean(value, allowed.split(', '))}")
    for key, value in leaves(cfg):
        if key not in INFINITE and not is_finite(value):
            raise ValueError(f"{key} is {value!r}; allowed: finite numbers")
    _check_together(cfg)
    if not train:
        return
    if not cfg.DATASETS.TRAIN:
        raise ValueError("DATASETS.TRAIN is (); training needs a data set (--eval-only goes without)")
    if cfg.TEST.BEST_METRIC and not (cfg.TEST.EVAL_PERIOD and cfg.DATASETS.TEST):
        raise ValueError(
            f"TEST.BEST_METRIC is {cfg.TEST.BEST_METRIC!r}, but TEST.EVAL_PERIOD is {cfg.TEST.EVAL_PERIOD} and "
            f"DATASETS.TEST {tuple(cfg.DATASETS.TEST)}: a best checkpoint needs evaluations to choose by"
        )
    if cfg.TEST.BEST_METRIC and not all(cfg.TEST.BEST_METRIC.partition("/")):
        raise ValueError(f"TEST.BEST_METRIC is {cfg.TEST.BEST_METRIC!r}; allowed: GROUP/METRIC, say panoptic_seg/PQ")
    processes = processes or comm.get_world_size()
    if cfg.SOLVER.IMS_PER_BATCH % processes:
        raise ValueError(
            f"SOLVER.IMS_PER_BATCH is {cfg.SOLVER.IMS_PER_BATCH}, which {processes} processes cannot share evenly"
        )


def _check_together(cfg: CfgNode) -> None:
    """Check keys that have to go with one another."""
    mean, std = cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD
    if len(mean) != len(std):
        raise ValueError(f"MODEL.PIXEL_STD has {len(std)} values, but MODEL.PIXEL_MEAN {len(mean)}: {std} and {mean}")
    channels = 1 if cfg.INPUT.FORMAT == "L" else 3
    if cfg.MODEL.SEM_SEG_HEAD.NAME not in CONTOUR_HEADS and len(mean) != channels:
        raise ValueError(
            f"MODEL.PIXEL_MEAN has {len(mean)} values, but images of INPUT.FORMAT {cfg.INPUT.FORMAT!r} have {channels}"
        )
    head, crop = cfg.MODEL.SEM_SEG_HEAD.NAME, cfg.INPUT.CROP
    if cfg.INPUT.RANDOM_FLIP == "both" and head not in CONTOUR_HEADS:
        raise ValueError(f"INPUT.RANDOM_FLIP is 'both', which goes with {', '.join(CONTOUR_HEADS)} alone, not {head}")
    if crop.TYPE.startswith("relative") and max(crop.SIZE) > 1:
        raise ValueError(f"INPUT.CROP.SIZE is {crop.SIZE}; with TYPE {crop.TYPE!r} it is a fraction of the image, to 1")
    if crop.TYPE.startswith("absolute") and any(length != int(length) for length in crop.SIZE):
        raise ValueError(f"INPUT.CROP.SIZE is {crop.SIZE}; with TYPE {crop.TYPE!r} it is a whole number of pixels")
    sizes = cfg.INPUT.MIN_SIZE_TRAIN
    if cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING == "range" and not (len(sizes) == 2 and sizes[0] <= sizes[1]):
        raise ValueError(f"INPUT.MIN_SIZE_TRAIN is {sizes}; with MIN_SIZE_TRAIN_SAMPLING 'range' it has two ends")
    for part in ("TRAIN", "TEST"):
        names, files = cfg.DATASETS[part], cfg.DATASETS[f"PROPOSAL_FILES_{part}"]
        if cfg.MODEL.LOAD_PROPOSALS and len(files) != len(names):
            raise ValueError(
                f"DATASETS.PROPOSAL_FILES_{part} is {files}, but MODEL.LOAD_PROPOSALS is True: each of DATASETS.{part} "
                f"{names} needs one"
            )


def is_finite(value: object) -> bool:
    """Whether no number in a value is infinite or none."""
    if isinstance(value, list | tuple):
        return all(map(is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


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


def check_device(key: str, name: str) -> str:
    """Check that this machine has the device of this name, a CUDA device only where it has any; its type.

    Raises:
        ValueError: names the key.
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"{key} is {name!r}; allowed: cpu, cuda, cuda:1 and so on") from error
    kind = device.type
    if kind == "cuda" and torch.cuda.is_available() and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"{key} is {name!r}, but this machine has {torch.cuda.device_count()} GPUs")
    if kind != "cuda":
        try:
            torch.zeros(1, device=device).tolist()
        except Exception as error:  # each backend that is not there has its own
            raise ValueError(f"{key} is {name!r}, which this machine does not have") from error
    return kind


def _check_device(cfg: CfgNode) -> None:
    kind = check_device("MODEL.DEVICE", cfg.MODEL.DEVICE)
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


def holds(rule: Callable[[object], bool], value: object) -> bool:
    """Whether a rule allows a value, be it of a type that the rule does not expect."""
    try:
        return rule(value)
    except (AttributeError, TypeError):  # a word in a list of numbers, say
        return False
