"""The check of a config before anything is built for good."""

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec

from .build import build_recurrence
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
