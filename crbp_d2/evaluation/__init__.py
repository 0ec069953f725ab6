"""Evaluators, pictures and tables."""

from crbp_d2 import _detectron2, _opencv  # noqa: F401, I001  (first: they explain a missing package)

from .build import (
    build_cityscapes_evaluator,
    build_instance_evaluator,
    build_panoptic_evaluator,
    build_semantic_evaluator,
    panoptic_evaluator,
)
from .early_exit import EarlyStopStatistics
from .panoptic import PanopticEvaluator
from .stepwise.panoptic import StepwisePanoptic
from .pathfinder import PathfinderEvaluator
from .visualize_pathfinder import PathfinderPictures
from .visualize import CatalogPictures, PanopticPictures
from .settling import SettlingStatistics
from .stepwise.segmentor import StepwiseSegmentor, check_steps_to_evaluate
from .stepwise.evaluator import StepwiseEvaluator
from .recording import StateRecord, record_states
from .results import metric_tables, pathfinder_table, results_table, write_results

__all__ = [
    "CatalogPictures",
    "EarlyStopStatistics",
    "PanopticEvaluator",
    "PanopticPictures",
    "PathfinderEvaluator",
    "PathfinderPictures",
    "SettlingStatistics",
    "StateRecord",
    "StepwiseEvaluator",
    "StepwisePanoptic",
    "StepwiseSegmentor",
    "build_cityscapes_evaluator",
    "build_instance_evaluator",
    "build_panoptic_evaluator",
    "build_semantic_evaluator",
    "check_steps_to_evaluate",
    "metric_tables",
    "panoptic_evaluator",
    "pathfinder_table",
    "record_states",
    "results_table",
    "write_results",
]
