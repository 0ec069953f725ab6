"""detectron2 parts around a recurrence; importing this registers them."""

from crbp_d2.utils import _detectron2  # noqa: F401, I001  (first: it explains a missing detectron2)

from .build import build_recurrence
from .check import check_recurrence_config
from .contour_head import ContourSegHead, FeedforwardContourHead
from .contour_stem import ContourStem
from .mask_head import RecurrentMaskHead
from .meta_arch import RecurrentPanopticFPN
from .seg_head import RecurrentSemSegHead

__all__ = [
    "ContourSegHead",
    "ContourStem",
    "FeedforwardContourHead",
    "RecurrentMaskHead",
    "RecurrentPanopticFPN",
    "RecurrentSemSegHead",
    "build_recurrence",
    "check_recurrence_config",
]
