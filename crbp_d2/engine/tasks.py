"""What the kind of a data set decides: mapper, evaluators, table."""

import os
from collections.abc import Callable
from dataclasses import dataclass

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators
from torch import nn

from crbp_d2.data import PanopticDatasetMapper, PathfinderDatasetMapper
from crbp_d2.evaluation import (
    PathfinderEvaluator,
    PathfinderPictures,
    StepwisePanoptic,
    StepwiseSegmentor,
    build_panoptic_evaluator,
    panoptic_table,
    pathfinder_table,
)


@dataclass(frozen=True)
class Task:
    """One kind of data sets.

    mapper: mapper(cfg, is_train=...).
    evaluator: evaluator(cfg, name of a data set, folder for its files).
    model: model(cfg, trained model) -> what is evaluated.
    table: table(cfg, {name of a data set: results}) -> Markdown.
    """

    mapper: Callable[..., Callable[[dict], dict]]
    evaluator: Callable[[CfgNode, str, str], DatasetEvaluator]
    model: Callable[[CfgNode, nn.Module], nn.Module]
    table: Callable[[CfgNode, dict[str, dict]], str]


def _pathfinder_evaluator(cfg: CfgNode, name: str, folder: str) -> DatasetEvaluators:
    evaluators: list[DatasetEvaluator] = [PathfinderEvaluator(name)]
    if cfg.TEST.PICTURES > 0:
        evaluators.append(PathfinderPictures(os.path.join(folder, "pictures"), cfg.TEST.PICTURES, _test_steps(cfg)))
    return DatasetEvaluators(evaluators)


def _test_steps(cfg: CfgNode) -> int | None:
    if cfg.MODEL.SEM_SEG_HEAD.NAME != "ContourSegHead":
        return None
    return cfg.MODEL.RECURRENCE.TEST_STEPS or cfg.MODEL.RECURRENCE.STEPS


TASKS = {
    "coco_panoptic_seg": Task(
        mapper=PanopticDatasetMapper,
        evaluator=build_panoptic_evaluator,
        model=lambda cfg, model: StepwisePanoptic(model, cfg.TEST.STEPS_TO_EVALUATE),
        table=lambda cfg, results: panoptic_table(results),
    ),
    "pathfinder": Task(
        mapper=PathfinderDatasetMapper,
        evaluator=_pathfinder_evaluator,
        model=lambda cfg, model: StepwiseSegmentor(model, cfg.TEST.STEPS_TO_EVALUATE),
        table=lambda cfg, results: pathfinder_table(results, _test_steps(cfg)),
    ),
}


def task_of(cfg: CfgNode) -> Task:
    """The task that all data sets of a config belong to.

    Raises:
        ValueError: no data set, one of another kind, or several kinds.
    """
    names = (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)
    kinds = {name: getattr(MetadataCatalog.get(name), "evaluator_type", None) for name in names}
    for name, kind in kinds.items():
        if kind not in TASKS:
            raise ValueError(f"the data set {name} is of the kind {kind!r}; this engine trains: {', '.join(TASKS)}")
    if len(set(kinds.values())) != 1:
        listed = ", ".join(f"{name} ({kind})" for name, kind in kinds.items()) or "none"
        raise ValueError(f"DATASETS.TRAIN and DATASETS.TEST must name data sets of one kind, got {listed}")
    return TASKS[next(iter(kinds.values()))]
