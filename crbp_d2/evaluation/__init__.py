"""Evaluators, pictures and tables."""

from crbp_d2 import _detectron2  # noqa: F401, I001  (first: it explains a missing detectron2)

from .build import build_panoptic_evaluator
from .panoptic import PanopticEvaluator
from .pathfinder import PathfinderEvaluator
from .pathfinder_pictures import PathfinderPictures
from .pictures import PanopticPictures
from .steps import StepwiseSegmentor, check_steps_to_evaluate
from .table import pathfinder_table, results_table, write_results

__all__ = [
    "PanopticEvaluator",
    "PanopticPictures",
    "PathfinderEvaluator",
    "PathfinderPictures",
    "StepwiseSegmentor",
    "build_panoptic_evaluator",
    "check_steps_to_evaluate",
    "pathfinder_table",
    "results_table",
    "write_results",
]
