"""Evaluators, pictures and tables."""

from crbp_d2 import _detectron2  # noqa: F401, I001  (first: it explains a missing detectron2)

from .build import build_panoptic_evaluator
from .panoptic import PanopticEvaluator
from .pictures import PanopticPictures
from .table import results_table, write_results

__all__ = ["PanopticEvaluator", "PanopticPictures", "build_panoptic_evaluator", "results_table", "write_results"]
