"""Check of the recurrent parts that a config describes, before anything is built for good."""

from collections.abc import Iterable

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec

from crbp_d2.config_file import value_of
from crbp_d2.utils.errors import ContradictionError

from .build import DEFAULTS
from .contour_head import ContourSegHead, FeedforwardContourHead
from .contour_stem import ContourStem
from .mask_head import RecurrentMaskHead
from .seg_head import RecurrentSemSegHead

PENALTY = ("MODEL.RECURRENCE.PENALTY.NAME", "MODEL.RECURRENCE.PENALTY.WEIGHT")


def check_recurrence_config(cfg: CfgNode, given: Iterable[str] = PENALTY[:1]) -> None:
    """Check MODEL.RECURRENCE, and MODEL.CONTOUR where a contour head reads it, by building one head on "meta".

    Args:
        given: keys that the user wrote, in which a penalty that the rule ignores is an error.

    Raises:
        SettingError: names the key, its value and the allowed values.
        ContradictionError: names keys that contradict each other.
    """
    head = cfg.MODEL.SEM_SEG_HEAD
    with torch.device("meta"):
        if head.NAME in ("ContourSegHead", "FeedforwardContourHead"):
            ContourStem(cfg, ShapeSpec(channels=1))
            kind = ContourSegHead if head.NAME == "ContourSegHead" else FeedforwardContourHead
            built = kind(cfg, {"stem": ShapeSpec(channels=cfg.MODEL.CONTOUR.CHANNELS, stride=1)})
        elif head.NAME == "RecurrentSemSegHead":
            level = ShapeSpec(channels=head.CONVS_DIM, stride=head.COMMON_STRIDE)
            built = RecurrentSemSegHead(cfg, dict.fromkeys(head.IN_FEATURES, level))
        else:  # Also where no head is recurrent, so that no value goes unseen.
            built = RecurrentMaskHead(cfg, ShapeSpec(channels=cfg.MODEL.ROI_MASK_HEAD.CONV_DIM))
    recurrence = getattr(built, "recurrence", None)
    for key in set(PENALTY) & set(given) if recurrence is not None and recurrence.penalty is None else ():
        value = value_of(cfg, key)
        if value not in (value_of(DEFAULTS, key), 0):
            settings = {key: value, "MODEL.RECURRENCE.RULE": cfg.MODEL.RECURRENCE.RULE}
            raise ContradictionError(settings, "the rule has no penalty; choose one that has, such as 'crbp'")
