"""What each of detectron2's keys may be, one row a key."""

import itertools
import math
from collections.abc import Callable, Iterable
from typing import Any

from detectron2.layers import get_norm
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY, SEM_SEG_HEADS_REGISTRY
from detectron2.modeling.anchor_generator import ANCHOR_GENERATOR_REGISTRY
from detectron2.modeling.proposal_generator import PROPOSAL_GENERATOR_REGISTRY
from detectron2.modeling.proposal_generator.rpn import RPN_HEAD_REGISTRY
from detectron2.modeling.roi_heads import (
    ROI_BOX_HEAD_REGISTRY,
    ROI_HEADS_REGISTRY,
    ROI_KEYPOINT_HEAD_REGISTRY,
    ROI_MASK_HEAD_REGISTRY,
)

from .optimizer import FULL_MODEL, OPTIMIZERS

# value -> whether it is allowed, and what is.
Rule = tuple[Callable[[Any], bool], str]

SCHEDULERS = ("WarmupMultiStepLR", "WarmupCosineLR", "WarmupStepWithFixedGammaLR")
# detectron2 has others, but no keys for their settings.
SAMPLERS = ("TrainingSampler", "RepeatFactorTrainingSampler")


def _whole(least: int, most: float = math.inf) -> Rule:
    text = f"whole numbers from {least}" + (f" to {most}" if most < math.inf else "")
    return lambda value: type(value) is int and least <= value <= most, text


def _number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _real(least: float, most: float = math.inf, *, above: bool = False, below: float = math.inf) -> Rule:
    text = f"finite numbers {'above' if above else 'from'} {least}"
    text += f" to {most}" if most < math.inf else f", below {below}" if below < math.inf else ""
    return (
        lambda v: _number(v) and (least < v if above else least <= v) and v <= most and v < below,
        text,
    )


def _one_of(names: Iterable) -> Rule:
    names = list(names)
    return lambda value: value in names, ", ".join(map(str, names))


def _either(value: object, rule: Rule) -> Rule:
    holds, text = rule
    return lambda v: v == value or holds(v), f"{text}, or {value!r}"


def _list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _every(rule: Rule, *, least: int = 1, most: float = math.inf) -> Rule:
    holds, text = rule
    number = f"{least} to {most}" if most < math.inf else f"at least {least}"
    return (
        lambda values: _list(values) and least <= len(values) <= most and all(map(holds, values)),
        f"a list of {number}: {text}",
    )


def _rising(rule: Rule, *, least: int = 0) -> Rule:
    holds, text = _every(rule, least=least)
    return lambda values: holds(values) and all(a < b for a, b in itertools.pairwise(values)), f"{text}, that rise"


def _registered(registry) -> Rule:
    return _one_of(sorted(name for name, _ in registry))


def _is_norm(value: object) -> bool:
    if not isinstance(value, str):
        return False
    try:
        get_norm(value, 32)
    except KeyError:
        return False
    return True


def _is_crop(value: Any) -> bool:
    return _list(value) and len(value) == 2 and all(_number(v) and v > 0 for v in value)


def _is_expected(value: Any) -> bool:
    """task, metric, value, tolerance."""
    return (
        _list(value) and len(value) == 4 and all(isinstance(v, str) for v in value[:2])
        and all(map(_number, value[2:])) and value[3] >= 0
    )  # fmt: skip


SIZE = _whole(1)
FROM_0 = _real(0)
ABOVE_0 = _real(0, above=True)
FRACTION = _real(0, 1)
PART = _real(0, 1, above=True)
FINITE: Rule = (_number, "finite numbers")
NAME: Rule = (lambda value: isinstance(value, str) and value.strip() != "", "names")
NAMES = _every(NAME)
SOME_TEXT: Rule = (lambda value: isinstance(value, str), "text")
SOME_BOOL: Rule = (lambda value: isinstance(value, bool), "true, false")
NORM: Rule = (_is_norm, "BN, SyncBN, FrozenBN, GN, LN, nnSyncBN, naiveSyncBN, naiveSyncBN_N, '' (none)")
BOX_LOSS = _one_of(("smooth_l1", "giou", "diou", "ciou"))
BOX_WEIGHTS = _every(ABOVE_0, least=4, most=5)  # 5 of rotated boxes
POOLER = _one_of(("ROIAlignV2", "ROIAlign", "ROIPool", "ROIAlignRotated"))
LABELS = _every(_one_of((-1, 0, 1)))
# Of evaluation and training.
COMMON: dict[str, Rule] = {
    "VERSION": _one_of((2,)),
    "OUTPUT_DIR": (lambda value: bool(value.strip()) and "://" not in value, "the path of a folder on a disk"),
    "SEED": (
        lambda value: type(value) is int and value < 2**32 - 2**16,
        "whole numbers below 2**32 - 2**16; a negative one: drawn anew",
    ),
    "VIS_PERIOD": _whole(0),
    "GLOBAL.HACK": FINITE,
    "DATALOADER.NUM_WORKERS": _whole(0),
    "DATASETS.TEST": _every(NAME, least=0),
    "DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TEST": SIZE,
    "MODEL.META_ARCHITECTURE": _registered(META_ARCH_REGISTRY),
    "MODEL.BACKBONE.NAME": _registered(BACKBONE_REGISTRY),
    "MODEL.BACKBONE.FREEZE_AT": _whole(0, 5),
    "MODEL.SEM_SEG_HEAD.NAME": _registered(SEM_SEG_HEADS_REGISTRY),
    "MODEL.PIXEL_MEAN": _every(FINITE),
    "MODEL.PIXEL_STD": _every(ABOVE_0),
    "MODEL.FPN.IN_FEATURES": _every(NAME, least=0),
    "MODEL.FPN.OUT_CHANNELS": SIZE,
    "MODEL.FPN.NORM": NORM,
    "MODEL.FPN.FUSE_TYPE": _one_of(("sum", "avg")),
    "MODEL.RESNETS.DEPTH": _one_of((18, 34, 50, 101, 152)),
    "MODEL.RESNETS.OUT_FEATURES": NAMES,
    "MODEL.RESNETS.NUM_GROUPS": SIZE,
    "MODEL.RESNETS.NORM": NORM,
    "MODEL.RESNETS.WIDTH_PER_GROUP": SIZE,
    "MODEL.RESNETS.RES5_DILATION": _one_of((1, 2)),
    "MODEL.RESNETS.RES2_OUT_CHANNELS": SIZE,
    "MODEL.RESNETS.STEM_OUT_CHANNELS": SIZE,
    "MODEL.RESNETS.DEFORM_ON_PER_STAGE": _every(_one_of((False, True)), least=4, most=4),
    "MODEL.RESNETS.DEFORM_NUM_GROUPS": SIZE,
    "MODEL.SEM_SEG_HEAD.IN_FEATURES": NAMES,
    "MODEL.SEM_SEG_HEAD.IGNORE_VALUE": _whole(-(2**31), 2**31),
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": SIZE,
    "MODEL.SEM_SEG_HEAD.CONVS_DIM": SIZE,
    "MODEL.SEM_SEG_HEAD.COMMON_STRIDE": _one_of((1, 2, 4, 8, 16, 32)),
    "MODEL.SEM_SEG_HEAD.NORM": NORM,
    "MODEL.PANOPTIC_FPN.COMBINE.OVERLAP_THRESH": FRACTION,
    "MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT": FROM_0,
    "MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH": FRACTION,
    "MODEL.ANCHOR_GENERATOR.NAME": _registered(ANCHOR_GENERATOR_REGISTRY),
    "MODEL.ANCHOR_GENERATOR.SIZES": _every(_every(ABOVE_0)),
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": _every(_every(ABOVE_0)),
    "MODEL.ANCHOR_GENERATOR.ANGLES": _every(_every(FINITE)),
    "MODEL.ANCHOR_GENERATOR.OFFSET": _real(0, below=1),
    "INPUT.FORMAT": _one_of(("BGR", "RGB", "L", "YUV-BT.601")),
    "INPUT.MIN_SIZE_TEST": _whole(0),
    "INPUT.MAX_SIZE_TEST": SIZE,
    "TEST.IMS_PER_BATCH": SIZE,
    "TEST.PICTURES": _whole(0),
    "TEST.DETECTIONS_PER_IMAGE": SIZE,
    "TEST.EXPECTED_RESULTS": _every((_is_expected, "[task, metric, value, tolerance]"), least=0),
    "TEST.KEYPOINT_OKS_SIGMAS": _every(ABOVE_0, least=0),
    "TEST.AUG.MIN_SIZES": _every(SIZE),
    "TEST.AUG.MAX_SIZE": SIZE,
}
# Of models that find instances.
ROI_RULES: dict[str, Rule] = {
    "MODEL.PROPOSAL_GENERATOR.NAME": _either("PrecomputedProposals", _registered(PROPOSAL_GENERATOR_REGISTRY)),
    "MODEL.PROPOSAL_GENERATOR.MIN_SIZE": _whole(0),
    "MODEL.RPN.HEAD_NAME": _registered(RPN_HEAD_REGISTRY),
    "MODEL.RPN.IN_FEATURES": NAMES,
    "MODEL.RPN.BOUNDARY_THRESH": _whole(-1),
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE": SIZE,
    "MODEL.RPN.POSITIVE_FRACTION": PART,
    "MODEL.RPN.BBOX_REG_LOSS_TYPE": BOX_LOSS,
    "MODEL.RPN.BBOX_REG_LOSS_WEIGHT": FROM_0,
    "MODEL.RPN.BBOX_REG_WEIGHTS": BOX_WEIGHTS,
    "MODEL.RPN.SMOOTH_L1_BETA": FROM_0,
    "MODEL.RPN.LOSS_WEIGHT": FROM_0,
    **{f"MODEL.RPN.{part}_NMS_TOPK_{when}": SIZE for part in ("PRE", "POST") for when in ("TRAIN", "TEST")},
    "MODEL.RPN.NMS_THRESH": FRACTION,
    "MODEL.RPN.CONV_DIMS": _every(_either(-1, SIZE)),
    "MODEL.ROI_HEADS.NAME": _registered(ROI_HEADS_REGISTRY),
    "MODEL.ROI_HEADS.NUM_CLASSES": SIZE,
    "MODEL.ROI_HEADS.IN_FEATURES": NAMES,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": SIZE,
    "MODEL.ROI_HEADS.POSITIVE_FRACTION": PART,
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": FRACTION,
    "MODEL.ROI_HEADS.NMS_THRESH_TEST": FRACTION,
    "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE": BOX_LOSS,
    "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_WEIGHT": FROM_0,
    "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS": BOX_WEIGHTS,
    "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA": FROM_0,
    "MODEL.ROI_BOX_HEAD.NUM_FC": _whole(0),
    "MODEL.ROI_BOX_HEAD.FC_DIM": SIZE,
    "MODEL.ROI_BOX_HEAD.NUM_CONV": _whole(0),
    "MODEL.ROI_BOX_HEAD.CONV_DIM": SIZE,
    "MODEL.ROI_BOX_HEAD.NORM": NORM,
    "MODEL.ROI_BOX_HEAD.FED_LOSS_FREQ_WEIGHT_POWER": FROM_0,
    "MODEL.ROI_BOX_HEAD.FED_LOSS_NUM_CLASSES": SIZE,
    "MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS": _every(BOX_WEIGHTS),
    "MODEL.ROI_BOX_CASCADE_HEAD.IOUS": _every(PART),
    "MODEL.ROI_MASK_HEAD.NAME": _registered(ROI_MASK_HEAD_REGISTRY),
    "MODEL.ROI_MASK_HEAD.NUM_CONV": _whole(0),
    "MODEL.ROI_MASK_HEAD.CONV_DIM": SIZE,
    "MODEL.ROI_MASK_HEAD.NORM": NORM,
    "MODEL.ROI_KEYPOINT_HEAD.NAME": _registered(ROI_KEYPOINT_HEAD_REGISTRY),
    "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS": _every(SIZE),
    "MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS": SIZE,
    "MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE": _whole(0),
    "MODEL.ROI_KEYPOINT_HEAD.LOSS_WEIGHT": FROM_0,
    **{f"MODEL.ROI_{part}_HEAD.POOLER_RESOLUTION": SIZE for part in ("BOX", "MASK", "KEYPOINT")},
    **{f"MODEL.ROI_{part}_HEAD.POOLER_SAMPLING_RATIO": _whole(0) for part in ("BOX", "MASK", "KEYPOINT")},
    **{f"MODEL.ROI_{part}_HEAD.POOLER_TYPE": POOLER for part in ("BOX", "MASK", "KEYPOINT")},
    **{f"MODEL.{part}.IOU_THRESHOLDS": _rising(PART, least=1) for part in ("RPN", "ROI_HEADS")},
    **{f"MODEL.{part}.IOU_LABELS": LABELS for part in ("RPN", "ROI_HEADS")},
}
# Of RoI heads that build a box head by its name: Res5ROIHeads of the C4 models have the backbone's last stage for one.
BOX_HEAD_RULES: dict[str, Rule] = {"MODEL.ROI_BOX_HEAD.NAME": _registered(ROI_BOX_HEAD_REGISTRY)}
RETINANET: dict[str, Rule] = {
    "MODEL.RETINANET.NUM_CLASSES": SIZE,
    "MODEL.RETINANET.IN_FEATURES": NAMES,
    "MODEL.RETINANET.NUM_CONVS": _whole(0),
    "MODEL.RETINANET.IOU_THRESHOLDS": _rising(PART, least=1),
    "MODEL.RETINANET.IOU_LABELS": LABELS,
    "MODEL.RETINANET.PRIOR_PROB": _real(0, above=True, below=1),
    "MODEL.RETINANET.SCORE_THRESH_TEST": FRACTION,
    "MODEL.RETINANET.TOPK_CANDIDATES_TEST": SIZE,
    "MODEL.RETINANET.NMS_THRESH_TEST": FRACTION,
    "MODEL.RETINANET.BBOX_REG_WEIGHTS": BOX_WEIGHTS,
    "MODEL.RETINANET.FOCAL_LOSS_GAMMA": FROM_0,
    "MODEL.RETINANET.FOCAL_LOSS_ALPHA": _real(-1, 1),
    "MODEL.RETINANET.SMOOTH_L1_LOSS_BETA": FROM_0,
    "MODEL.RETINANET.BBOX_REG_LOSS_TYPE": BOX_LOSS,
    "MODEL.RETINANET.NORM": NORM,
}
# Whose infinite values mean something.
INFINITE = ("SOLVER.CLIP_GRADIENTS.NORM_TYPE",)
TRAINING: dict[str, Rule] = {
    "SOLVER.MAX_ITER": SIZE,
    "SOLVER.IMS_PER_BATCH": SIZE,
    "SOLVER.CHECKPOINT_PERIOD": SIZE,
    "SOLVER.OPTIMIZER": _one_of(OPTIMIZERS),
    "SOLVER.BASE_LR": ABOVE_0,
    "SOLVER.BASE_LR_END": FROM_0,
    "SOLVER.MOMENTUM": _real(0, below=1),
    "SOLVER.WEIGHT_DECAY": FROM_0,
    "SOLVER.WEIGHT_DECAY_NORM": _either(None, FROM_0),
    "SOLVER.WEIGHT_DECAY_BIAS": _either(None, FROM_0),
    "SOLVER.BIAS_LR_FACTOR": FROM_0,
    "SOLVER.GAMMA": ABOVE_0,
    "SOLVER.LR_SCHEDULER_NAME": _one_of(SCHEDULERS),
    "SOLVER.STEPS": _rising(SIZE),
    "SOLVER.NUM_DECAYS": SIZE,
    "SOLVER.WARMUP_ITERS": _whole(0),
    "SOLVER.WARMUP_FACTOR": FROM_0,
    "SOLVER.WARMUP_METHOD": _one_of(("constant", "linear")),
    "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": _one_of(("norm", "value", FULL_MODEL)),
    "SOLVER.CLIP_GRADIENTS.CLIP_VALUE": ABOVE_0,
    "SOLVER.CLIP_GRADIENTS.NORM_TYPE": (lambda value: value > 0, "numbers above 0, also infinity"),
    "SOLVER.REFERENCE_WORLD_SIZE": _whole(0),
    "SOLVER.ACCUMULATE": SIZE,
    "SOLVER.AMP.DTYPE": _one_of(("float16", "bfloat16")),
    "SOLVER.EMA.DECAY": _real(0, below=1),
    "DATALOADER.SAMPLER_TRAIN": _one_of(SAMPLERS),
    "DATALOADER.REPEAT_THRESHOLD": FROM_0,
    "DATASETS.TRAIN": _every(NAME, least=0),
    "DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TRAIN": SIZE,
    "INPUT.MIN_SIZE_TRAIN": _every(_whole(0)),
    "INPUT.MIN_SIZE_TRAIN_SAMPLING": _one_of(("choice", "range")),
    "INPUT.MAX_SIZE_TRAIN": SIZE,
    "INPUT.RANDOM_FLIP": _one_of(("none", "horizontal", "vertical", "both")),
    "INPUT.MASK_FORMAT": _one_of(("polygon", "bitmask")),
    "INPUT.CROP.TYPE": _one_of(("relative_range", "relative", "absolute", "absolute_range")),
    "INPUT.CROP.SIZE": (_is_crop, "two numbers above 0"),
    "MODEL.SEM_SEG_HEAD.LOSS_WEIGHT": FROM_0,
    "MODEL.PANOPTIC_FPN.INSTANCE_LOSS_WEIGHT": FROM_0,
    "TEST.EVAL_PERIOD": _whole(0),
    "TEST.VALIDATION_IMAGES": _whole(0),
    "TEST.PRECISE_BN.NUM_ITER": SIZE,
}
