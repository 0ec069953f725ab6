"""Check of the settings that cost hours or silently train something wrong, before anything is built.

Other keys of detectron2 are left to the parts that read them: a scheduler, sampler, optimizer, pooler or crop of a
user's own is never rejected for its name.
"""

import itertools
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY, SEM_SEG_HEADS_REGISTRY
from detectron2.modeling.roi_heads import ROI_MASK_HEAD_REGISTRY
from detectron2.utils import comm

from crbp_d2.config_file import leaves, value_of
from crbp_d2.utils.errors import ContradictionError, SettingError

# A predicate, and the allowed values in words or one by one.
Rule = tuple[Callable[[Any], bool], str | Iterable[str]]


def _whole(minimum: int) -> Rule:
    return lambda value: type(value) is int and value >= minimum, f"whole numbers from {minimum}"


def _number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _real(interval: str) -> Rule:
    """Numbers in an interval such as "(0, inf)"."""
    low, high = (float(end) for end in interval[1:-1].split(","))
    closed = {low} if interval[0] == "[" else set()
    return lambda v: _number(v) and (low < v < high or v in closed), f"finite numbers in {interval}"


def _one_of(*names: str) -> Rule:
    return lambda value: value in names, names


def or_none(rule: Rule) -> Rule:
    holds, text = rule
    return lambda value: value is None or holds(value), f"{text}, or None"


def _every(rule: Rule, length: int = 1) -> Rule:
    holds, text = rule
    return (
        lambda values: isinstance(values, list | tuple) and len(values) >= length and all(map(holds, values)),
        f"a list of at least {length}: {text}",
    )


def _rising(rule: Rule) -> Rule:
    holds, text = _every(rule, length=0)
    return lambda values: holds(values) and all(a < b for a, b in itertools.pairwise(values)), f"{text}, rising"


def _is_expected(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 4 and all(map(_number, value[2:])) and value[3] >= 0


SIZE = _whole(1)
COUNT = _whole(0)
FROM_0 = _real("[0, inf)")
ABOVE_0 = _real("(0, inf)")
NAMES = _every((lambda value: isinstance(value, str) and value.strip() != "", "names"), length=0)
FOLDER: Rule = (lambda value: bool(value.strip()) and "://" not in value, "the path of a folder on a disk")
SEED: Rule = (
    lambda value: type(value) is int and value < 2**32 - 2**16,
    "whole numbers below 2**32 - 2**16; a negative one: random",
)
COMMON: dict[str, Rule] = {
    "OUTPUT_DIR": FOLDER,
    "SEED": SEED,
    "VIS_PERIOD": COUNT,
    "DATALOADER.NUM_WORKERS": COUNT,
    "DATASETS.TEST": NAMES,
    "MODEL.PIXEL_MEAN": _every((_number, "finite numbers")),
    "MODEL.PIXEL_STD": _every(ABOVE_0),
    "INPUT.FORMAT": _one_of("BGR", "RGB", "L", "YUV-BT.601"),
    "INPUT.MIN_SIZE_TEST": COUNT,
    "INPUT.MAX_SIZE_TEST": SIZE,
    "TEST.IMS_PER_BATCH": SIZE,
    "TEST.PICTURES": COUNT,
    "TEST.DETECTIONS_PER_IMAGE": SIZE,
    "TEST.EXPECTED_RESULTS": _every((_is_expected, "[task, metric, value, tolerance]"), length=0),
}
TRAINING: dict[str, Rule] = {
    "SOLVER.MAX_ITER": SIZE,
    "SOLVER.IMS_PER_BATCH": SIZE,
    "SOLVER.CHECKPOINT_PERIOD": SIZE,
    "SOLVER.BASE_LR": ABOVE_0,
    "SOLVER.BASE_LR_END": FROM_0,
    "SOLVER.MOMENTUM": _real("[0, 1)"),
    "SOLVER.WEIGHT_DECAY": FROM_0,
    "SOLVER.WEIGHT_DECAY_NORM": or_none(FROM_0),
    "SOLVER.WEIGHT_DECAY_BIAS": or_none(FROM_0),
    "SOLVER.BIAS_LR_FACTOR": FROM_0,
    "SOLVER.GAMMA": ABOVE_0,
    "SOLVER.STEPS": _rising(SIZE),
    "SOLVER.NUM_DECAYS": SIZE,
    "SOLVER.WARMUP_ITERS": COUNT,
    "SOLVER.WARMUP_FACTOR": FROM_0,
    "SOLVER.WARMUP_METHOD": _one_of("constant", "linear"),
    "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": _one_of("norm", "value", "full_model"),
    "SOLVER.CLIP_GRADIENTS.CLIP_VALUE": ABOVE_0,
    "SOLVER.CLIP_GRADIENTS.NORM_TYPE": (lambda value: value > 0, "numbers above 0, also infinity"),
    "SOLVER.REFERENCE_WORLD_SIZE": COUNT,
    "SOLVER.ACCUMULATE": SIZE,
    "SOLVER.AMP.DTYPE": _one_of("float16", "bfloat16"),
    "SOLVER.EMA.DECAY": _real("[0, 1)"),
    "DATALOADER.REPEAT_THRESHOLD": FROM_0,
    "DATASETS.TRAIN": NAMES,
    "INPUT.MIN_SIZE_TRAIN": _every(COUNT),
    "INPUT.MAX_SIZE_TRAIN": SIZE,
    "INPUT.RANDOM_FLIP": _one_of("none", "horizontal", "vertical", "both"),
    "INPUT.MASK_FORMAT": _one_of("polygon", "bitmask"),
    "MODEL.SEM_SEG_HEAD.LOSS_WEIGHT": FROM_0,
    "TEST.EVAL_PERIOD": COUNT,
    "TEST.VALIDATION_IMAGES": COUNT,
    "TEST.PRECISE_BN.NUM_ITER": SIZE,
}
# Infinity is a value of theirs.
INFINITE = ("SOLVER.CLIP_GRADIENTS.NORM_TYPE",)
REGISTRIES = {
    "MODEL.META_ARCHITECTURE": META_ARCH_REGISTRY,
    "MODEL.BACKBONE.NAME": BACKBONE_REGISTRY,
    "MODEL.SEM_SEG_HEAD.NAME": SEM_SEG_HEADS_REGISTRY,
    "MODEL.ROI_MASK_HEAD.NAME": ROI_MASK_HEAD_REGISTRY,
}
CONTOUR_HEADS = ("ContourSegHead", "FeedforwardContourHead")


def check_settings(cfg: CfgNode, *, train: bool = True, processes: int | None = None) -> None:
    """Check each key of the tables above, and that the keys agree with one another and with the machine.

    Args:
        processes: number that will share a batch; None: those that run.

    Raises:
        SettingError: names a key, its value and the allowed values.
        ContradictionError: keys that contradict each other.
    """
    check_device("MODEL.DEVICE", cfg.MODEL.DEVICE)
    check_values(lambda key: value_of(cfg, key), COMMON | (TRAINING if train else {}))
    for key, registry in REGISTRIES.items():
        if value_of(cfg, key) not in registry and (cfg.MODEL.MASK_ON or "MASK" not in key):
            raise SettingError(key, value_of(cfg, key), sorted(name for name, _ in registry))
    check_finite((key, value) for key, value in leaves(cfg) if key not in INFINITE)
    _check_channels(cfg)
    if train:
        _check_training(cfg, processes or comm.get_world_size())


def check_values(value: Callable[[str], Any], rules: dict[str, Rule]) -> None:
    """Check values by their rules.

    Args:
        value: key -> its value.

    Raises:
        SettingError: see check_settings.
    """
    for key, (rule, allowed) in rules.items():
        try:
            holds = rule(value(key))
        except (AttributeError, TypeError):  # a word in a list of numbers, say
            holds = False
        if not holds:
            raise SettingError(key, value(key), allowed)


def check_finite(values: Iterable[tuple[str, Any]]) -> None:
    """Check that all numbers in the values of keys are finite.

    Raises:
        SettingError: see check_settings.
    """
    for key, value in values:
        if not _is_finite(value):
            raise SettingError(key, value, "finite numbers")


def _is_finite(value: object) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def _check_channels(cfg: CfgNode) -> None:
    mean, std, head = cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD, cfg.MODEL.SEM_SEG_HEAD.NAME
    channels = 1 if cfg.INPUT.FORMAT == "L" else 3
    if len(mean) != len(std):
        settings = {"MODEL.PIXEL_STD": std, "MODEL.PIXEL_MEAN": mean}
        raise ContradictionError(settings, "give both a value for each channel")
    if head not in CONTOUR_HEADS and len(mean) != channels:
        settings = {"MODEL.PIXEL_MEAN": mean, "INPUT.FORMAT": cfg.INPUT.FORMAT}
        raise ContradictionError(settings, f"such images have channels: {channels}")


def _check_training(cfg: CfgNode, processes: int) -> None:
    test, amp = cfg.TEST, cfg.SOLVER.AMP
    if not cfg.DATASETS.TRAIN:
        raise SettingError("DATASETS.TRAIN", (), "names of data sets (--eval-only needs none)")
    if test.BEST_METRIC and not (test.EVAL_PERIOD and cfg.DATASETS.TEST):
        settings = {
            "TEST.BEST_METRIC": test.BEST_METRIC,
            "TEST.EVAL_PERIOD": test.EVAL_PERIOD,
            "DATASETS.TEST": tuple(cfg.DATASETS.TEST),
        }
        raise ContradictionError(settings, "a best checkpoint needs evaluations to choose by")
    if test.BEST_METRIC and not all(test.BEST_METRIC.partition("/")):
        raise SettingError("TEST.BEST_METRIC", test.BEST_METRIC, "GROUP/METRIC, such as panoptic_seg/PQ")
    if cfg.SOLVER.IMS_PER_BATCH % processes:
        allowed = f"multiples of {processes}, the number of processes"
        raise SettingError("SOLVER.IMS_PER_BATCH", cfg.SOLVER.IMS_PER_BATCH, allowed)
    if cfg.INPUT.RANDOM_FLIP == "both" and cfg.MODEL.SEM_SEG_HEAD.NAME not in CONTOUR_HEADS:
        raise SettingError("INPUT.RANDOM_FLIP", "both", f"'both' for {', '.join(CONTOUR_HEADS)} only")
    on_gpu = torch.device(cfg.MODEL.DEVICE).type == "cuda" and torch.cuda.is_available()
    if amp.ENABLED and amp.DTYPE == "float16" and not on_gpu:
        settings = {"SOLVER.AMP.ENABLED": True, "SOLVER.AMP.DTYPE": amp.DTYPE, "MODEL.DEVICE": cfg.MODEL.DEVICE}
        raise ContradictionError(settings, "float16 needs a CUDA device; 'bfloat16' does not")


def check_device(key: str, name: str) -> None:
    """Check that this machine has a device, a CUDA device only where it has any.

    Raises:
        SettingError: names the key.
    """
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise SettingError(key, name, "cpu, cuda, cuda:1 and so on") from error
    if device.type == "cuda":
        if torch.cuda.is_available() and (device.index or 0) >= torch.cuda.device_count():
            raise SettingError(key, name, f"the {torch.cuda.device_count()} GPUs of this machine, from cuda:0")
        return
    try:
        torch.zeros(1, device=device).tolist()
    except Exception as error:  # each backend that is missing raises its own
        raise SettingError(key, name, "a device of this machine") from error
