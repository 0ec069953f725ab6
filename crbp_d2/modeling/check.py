"""The check of a config before anything is built for good."""

from collections.abc import Callable, Mapping

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model
from torch import nn

from crbp_d2.config_file import leaves, value_of
from crbp_d2.utils.errors import SettingError

from .build import DEFAULTS, build_recurrence
from .contour_head import ContourSegHead, FeedforwardContourHead
from .contour_stem import ContourStem
from .mask_head import RecurrentMaskHead
from .seg_head import RecurrentSemSegHead


def check_recurrence_config(cfg: CfgNode) -> None:
    """Check every value of MODEL.RECURRENCE, of MODEL.CONTOUR if a contour head has it, and that they go together.

    It builds the recurrent parts that the config names, without memory (on the device "meta") and without drawing
    random numbers, since their constructors are what checks.

    Raises:
        SettingError: names the key, its value and the allowed values.
        ContradictionError: names keys that contradict each other.
    """
    head, mask_head = cfg.MODEL.SEM_SEG_HEAD, cfg.MODEL.ROI_MASK_HEAD
    with torch.device("meta"):
        if head.NAME in ("ContourSegHead", "FeedforwardContourHead"):
            ContourStem(cfg, ShapeSpec(channels=1))
            stem = {"stem": ShapeSpec(channels=cfg.MODEL.CONTOUR.CHANNELS, stride=1)}
            FeedforwardContourHead(cfg, stem)
            if head.NAME == "ContourSegHead":
                ContourSegHead(cfg, stem)
            else:
                build_recurrence(cfg, 64)  # It is not used; any width will do.
            return
        if head.NAME == "RecurrentSemSegHead":
            level = ShapeSpec(channels=head.CONVS_DIM, stride=head.COMMON_STRIDE)
            RecurrentSemSegHead(cfg, dict.fromkeys(head.IN_FEATURES, level))
            if mask_head.NAME != "RecurrentMaskHead":
                return
        # Also where no head is recurrent, so that no value goes unseen.
        RecurrentMaskHead(cfg, ShapeSpec(channels=mask_head.CONV_DIM, height=14, width=14))


def check_model(cfg: CfgNode, plain: Callable[[], CfgNode]) -> None:
    """Check that the model of a config can be built, by building it without memory.

    What cannot be built so (a part that looks at its own numbers, say) is built in memory and thrown away.

    Args:
        plain: gives the config without the options of the command line, to find which of them is to blame.

    Raises:
        SettingError, ContradictionError: see check_recurrence_config.
        ValueError: names the keys whose values no model can be built with.
    """
    error = _error_of(cfg)
    if error is None:
        return
    if isinstance(error, SettingError) and "." in error.name:
        raise error
    changed = {key: value for key, value in leaves(plain()) if value_of(cfg, key) != value}
    if _error_of(_with(cfg, changed)) is not None:
        changed = {key: value for key, value in leaves(DEFAULTS) if value_of(cfg, key) != value}
    blamed = [key for key, value in changed.items() if _error_of(_with(cfg, {key: value})) is None] or list(changed)
    given = ", ".join(f"{key} is {value_of(cfg, key)!r}" for key in blamed)
    text = " ".join(str(error).split()) or type(error).__name__
    raise ValueError(f"{given}: no model can be built so ({text})") from error


def _error_of(cfg: CfgNode) -> Exception | None:
    try:
        check_recurrence_config(cfg)
        try:
            with torch.device("meta"):
                model = build_model(_with(cfg, {"MODEL.DEVICE": "meta"}))
        except Exception:
            model = build_model(_with(cfg, {"MODEL.DEVICE": "cpu"}))
        _check_strides(cfg, model)
    except Exception as error:  # detectron2's parts raise errors of every kind
        return error
    return None


def _with(cfg: CfgNode, values: Mapping[str, object]) -> CfgNode:
    """A copy with other values."""
    copy = cfg.clone()
    copy.defrost()
    for key, value in values.items():
        section, _, name = key.rpartition(".")
        (value_of(copy, section) if section else copy)[name] = value
    return copy


def _check_strides(cfg: CfgNode, model: nn.Module) -> None:
    """Check the stride of the semantic head's output, which detectron2's head only reaches from above."""
    head = cfg.MODEL.SEM_SEG_HEAD
    if hasattr(model, "sem_seg_head") and head.NAME in ("SemSegFPNHead", "RecurrentSemSegHead"):
        shapes = model.backbone.output_shape()
        least = min(shapes[name].stride for name in head.IN_FEATURES)
        if least < head.COMMON_STRIDE:
            allowed = f"powers of 2 to {least}, the least stride of IN_FEATURES {head.IN_FEATURES}"
            raise SettingError("MODEL.SEM_SEG_HEAD.COMMON_STRIDE", head.COMMON_STRIDE, allowed)
