"""Mapper, evaluators and table of each kind of data set, which is detectron2's `evaluator_type` of the metadata."""

import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators
from torch import nn

from crbp_d2.data import InstanceDatasetMapper, PanopticDatasetMapper, PathfinderDatasetMapper
from crbp_d2.evaluation import (
    PathfinderEvaluator,
    PathfinderPictures,
    StepwisePanoptic,
    StepwiseSegmentor,
    build_cityscapes_evaluator,
    build_instance_evaluator,
    build_panoptic_evaluator,
    build_semantic_evaluator,
    metric_tables,
    pathfinder_table,
)
from crbp_d2.utils.files import inside


@dataclass(frozen=True)
class Task:
    """One kind of data sets.

    mapper: mapper(cfg, is_train=...).
    evaluator: evaluator(cfg, name of a data set, folder for its files).
    model: model(cfg, trained model) -> the model to evaluate.
    table: table(cfg, {name of a data set: results}) -> Markdown.
    needs: packages that read its data or compute its scores.
    steps: TEST.STEPS_TO_EVALUATE may be set.
    """

    mapper: Callable[..., Any]
    evaluator: Callable[[CfgNode, str, str], DatasetEvaluator]
    model: Callable[[CfgNode, nn.Module], nn.Module] = lambda cfg, model: model
    table: Callable[[CfgNode, dict[str, dict]], str] = lambda cfg, results: metric_tables(results)
    needs: tuple[str, ...] = ()
    steps: bool = False


def _pathfinder_evaluator(cfg: CfgNode, name: str, folder: str) -> DatasetEvaluators:
    evaluators: list[DatasetEvaluator] = [PathfinderEvaluator(name)]
    if cfg.TEST.PICTURES > 0:
        evaluators.append(PathfinderPictures(os.path.join(folder, "pictures"), cfg.TEST.PICTURES, _test_steps(cfg)))
    return DatasetEvaluators(evaluators)


def _test_steps(cfg: CfgNode) -> int | None:
    if cfg.MODEL.SEM_SEG_HEAD.NAME != "ContourSegHead":
        return None
    return cfg.MODEL.RECURRENCE.TEST_STEPS or cfg.MODEL.RECURRENCE.STEPS


def _cityscapes(*needs: str) -> Task:
    return Task(InstanceDatasetMapper, build_cityscapes_evaluator, needs=("cityscapesscripts", *needs))


# Options of pip that a package needs: lvis would install a second OpenCV.
PIP = {"lvis": "--no-deps "}
TASKS = {
    "coco": Task(InstanceDatasetMapper, build_instance_evaluator),
    "lvis": Task(InstanceDatasetMapper, build_instance_evaluator, needs=("lvis",)),
    "pascal_voc": Task(InstanceDatasetMapper, build_instance_evaluator),
    "sem_seg": Task(InstanceDatasetMapper, build_semantic_evaluator),
    "cityscapes_instance": _cityscapes("shapely"),
    "cityscapes_sem_seg": _cityscapes(),
    "cityscapes_panoptic_seg": _cityscapes(),
    "coco_panoptic_seg": Task(
        mapper=PanopticDatasetMapper,
        evaluator=build_panoptic_evaluator,
        model=lambda cfg, model: StepwisePanoptic(model, cfg.TEST.STEPS_TO_EVALUATE),
        steps=True,
    ),
    "pathfinder": Task(
        mapper=PathfinderDatasetMapper,
        evaluator=_pathfinder_evaluator,
        model=lambda cfg, model: StepwiseSegmentor(model, cfg.TEST.STEPS_TO_EVALUATE),
        table=lambda cfg, results: pathfinder_table(results, _test_steps(cfg)),
        steps=True,
    ),
}


# Kinds without semantic maps.
INSTANCES = ("coco", "lvis", "pascal_voc", "cityscapes_instance")


def task_of(cfg: CfgNode) -> Task:
    """The task that all data sets of a config belong to.

    Raises:
        ValueError: no data set, one of another kind, several kinds, a package that the kind needs is missing, or
            step counts to evaluate on a kind that has no metrics for them.
    """
    names = (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)
    kinds = {name: getattr(MetadataCatalog.get(name), "evaluator_type", None) for name in names}
    for name, kind in kinds.items():
        if kind not in TASKS:
            raise ValueError(
                f"the data set {name} has the evaluator_type {kind!r}; supported: {', '.join(sorted(TASKS))}"
            )
    if len(set(kinds.values())) != 1:
        listed = ", ".join(f"{name} ({kind})" for name, kind in kinds.items()) or "none"
        raise ValueError(f"DATASETS.TRAIN and DATASETS.TEST must name data sets of one kind, got {listed}")
    kind = next(iter(kinds.values()))
    task = TASKS[kind]
    if missing := [package for package in task.needs if importlib.util.find_spec(package) is None]:
        raise ValueError(
            f"the data set {names[0]} has the evaluator_type {kind!r}, which needs {' and '.join(missing)}: run "
            f"`pip install {PIP.get(missing[0], '')}{' '.join(missing)}`"
        )
    if kind in INSTANCES and cfg.MODEL.META_ARCHITECTURE.endswith("PanopticFPN"):
        raise ValueError(
            f"MODEL.META_ARCHITECTURE is {cfg.MODEL.META_ARCHITECTURE!r}, which also needs stuff, but the data set "
            f"{names[0]} ({kind}) has instances only: set it to 'GeneralizedRCNN'"
        )
    panoptic_outputs = kind != "coco_panoptic_seg" or cfg.MODEL.META_ARCHITECTURE.endswith("PanopticFPN")
    if cfg.TEST.STEPS_TO_EVALUATE and not (task.steps and panoptic_outputs):
        raise ValueError(
            f"TEST.STEPS_TO_EVALUATE is {tuple(cfg.TEST.STEPS_TO_EVALUATE)}, which MODEL.META_ARCHITECTURE "
            f"{cfg.MODEL.META_ARCHITECTURE!r} on a data set of the kind {kind!r} has no metrics for: leave it empty"
        )
    return task


def inference_folder(cfg: CfgNode, dataset_name: str) -> str:
    """The folder for the files of an evaluation.

    Raises:
        ValueError: it would be outside OUTPUT_DIR.
    """
    return inside(os.path.join(cfg.OUTPUT_DIR, "inference"), dataset_name, "the name of a data set")
