"""Evaluators, pictures and tables."""

from crbp_d2 import _detectron2  # noqa: F401, I001  (first: it explains a missing detectron2)

from .build import build_panoptic_evaluator
from .early_exit import EarlyStopStatistics
from .panoptic import PanopticEvaluator
from .stepwise.panoptic import StepwisePanoptic
from .pathfinder import PathfinderEvaluator
from .visualize_pathfinder import PathfinderPictures
from .visualize import PanopticPictures
from .stepwise.segmentor import StepwiseSegmentor, check_steps_to_evaluate
from .stepwise.evaluator import StepwiseEvaluator
from .results import panoptic_table, pathfinder_table, results_table, write_results

__all__ = [
    "EarlyStopStatistics",
    "PanopticEvaluator",
    "PanopticPictures",
    "PathfinderEvaluator",
    "PathfinderPictures",
    "StepwiseEvaluator",
    "StepwisePanoptic",
    "StepwiseSegmentor",
    "build_panoptic_evaluator",
    "check_steps_to_evaluate",
    "panoptic_table",
    "pathfinder_table",
    "results_table",
    "write_results",
]
