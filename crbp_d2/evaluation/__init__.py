"""Evaluators, pictures and tables."""

from crbp_d2.utils import _detectron2, _opencv  # noqa: F401, I001  (first: they explain a missing package)

from .build import (
    build_cityscapes_evaluator,
    build_instance_evaluator,
    build_panoptic_evaluator,
    build_semantic_evaluator,
    panoptic_evaluator,
)
from .per_step.settling import EarlyStopStatistics
from .panoptic import PanopticEvaluator
from .per_step.panoptic import StepwisePanoptic
from .pathfinder import PathfinderEvaluator
from .pathfinder import PathfinderPictures
from .drawing import CatalogPictures, PanopticPictures
from .per_step.settling import SettlingStatistics
from .per_step.record import StepwiseSegmentor, check_steps_to_evaluate
from .per_step.report import StepwiseEvaluator
from .per_step.record import StateRecord, record_states
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
