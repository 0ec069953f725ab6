"""Evaluators of a data set, by its kind."""

import os

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import (
    COCOPanopticEvaluator,
    DatasetEvaluator,
    DatasetEvaluators,
    PascalVOCDetectionEvaluator,
    SemSegEvaluator,
)
from detectron2.utils.file_io import PathManager
from PIL import Image

from crbp_d2.modeling.compiled import has_compiled_part

from .drawing import CatalogPictures, PanopticPictures
from .instances import (
    BoxAndMaskEvaluator,
    CityscapesInstances,
    CityscapesPixels,
    IfPredicted,
    LargeVocabularyEvaluator,
    set_instances,
)
from .panoptic import PanopticEvaluator
from .per_step.masks import MaskPrecisionByStep
from .per_step.panoptic import PanopticQualityByStep
from .per_step.report import StepwiseEvaluator


def build_instance_evaluator(cfg: CfgNode, name: str, folder: str) -> DatasetEvaluator:
    """Box, mask and keypoint AP of a data set of the kind coco, lvis or pascal_voc, and pictures.

    The predictions are written to `folder` in the form that the test servers take.
    """
    PathManager.mkdirs(folder)
    kind = MetadataCatalog.get(name).evaluator_type
    if kind == "lvis":
        scores = LargeVocabularyEvaluator(name, output_dir=folder, max_dets_per_image=_detections(cfg, 300))
    elif kind == "pascal_voc":
        scores = PascalVOCDetectionEvaluator(name)
    else:
        parts = (("bbox", True), ("segm", cfg.MODEL.MASK_ON), ("keypoints", cfg.MODEL.KEYPOINT_ON))
        scores = BoxAndMaskEvaluator(
            _shadow(name, folder) if MetadataCatalog.get(name).get("json_file") else name,
            tasks=tuple(part for part, on in parts if on),
            output_dir=folder,
            use_fast_impl=has_compiled_part(),
            kpt_oks_sigmas=cfg.TEST.KEYPOINT_OKS_SIGMAS,
            max_dets_per_image=_detections(cfg),
        )
    return _with_pictures(CatalogPictures, cfg.TEST.PICTURES, name, folder, [scores])


def build_semantic_evaluator(cfg: CfgNode, name: str, folder: str) -> DatasetEvaluator:
    """mIoU and accuracies of a data set of the kind sem_seg, and pictures."""
    PathManager.mkdirs(folder)
    semantic = SemSegEvaluator(name, output_dir=folder, sem_seg_loading_fn=_read_labels)
    return _with_pictures(CatalogPictures, cfg.TEST.PICTURES, name, folder, [semantic])


def _read_labels(path: str, copy: bool = False, dtype: type = np.uint8) -> np.ndarray:
    """Labels of an image file; detectron2's own reader fails with numpy 2."""
    with PathManager.open(path, "rb") as file:
        return np.asarray(Image.open(file)).astype(dtype)


def build_cityscapes_evaluator(cfg: CfgNode, name: str, folder: str) -> DatasetEvaluator:
    """Cityscapes' own metrics for the kinds of labels that the data set and the model have, and pictures."""
    kind = MetadataCatalog.get(name).evaluator_type
    PathManager.mkdirs(folder)
    evaluators: list[DatasetEvaluator] = []
    if kind != "cityscapes_instance":
        evaluators.append(IfPredicted("sem_seg", CityscapesPixels(name)))
    if kind != "cityscapes_sem_seg":
        evaluators.append(IfPredicted("instances", CityscapesInstances(name)))
    if kind == "cityscapes_panoptic_seg":
        evaluators.append(IfPredicted("panoptic_seg", COCOPanopticEvaluator(name, folder)))
    return _with_pictures(CatalogPictures, cfg.TEST.PICTURES, name, folder, evaluators)


def _detections(cfg: CfgNode, usual: int = 100) -> int:
    """Maximum number of detections of an image that count: `usual`, or more if the model gives more."""
    return max(usual, cfg.TEST.DETECTIONS_PER_IMAGE)


def _with_pictures(
    kind: type[CatalogPictures], count: int, name: str, folder: str, evaluators: list[DatasetEvaluator]
) -> DatasetEvaluators:
    # First, because some evaluators change the predictions they are given.
    pictures = [kind(name, os.path.join(folder, "pictures"), count)] if count > 0 else []
    return DatasetEvaluators([*pictures, *evaluators])


def build_panoptic_evaluator(cfg: CfgNode, name: str, folder: str) -> DatasetEvaluator:
    """panoptic_evaluator with the pictures and step counts of cfg.TEST."""
    recurrence = cfg.MODEL.RECURRENCE
    return panoptic_evaluator(
        name,
        folder,
        pictures=cfg.TEST.PICTURES,
        steps=tuple(cfg.TEST.STEPS_TO_EVALUATE),
        marked=recurrence.TEST_STEPS or recurrence.STEPS,
        detections=_detections(cfg),
    )


def panoptic_evaluator(
    name: str,
    folder: str,
    *,
    pictures: int = 8,
    steps: tuple[int, ...] = (),
    marked: int = 0,
    detections: int = 100,
) -> DatasetEvaluator:
    """Panoptic quality, box and mask AP, mIoU and pictures of a data set, as far as the model predicts them.

    AP is measured against the data set's instances JSON, or without one against instances derived from the panoptic
    PNGs.

    Args:
        name: a registered panoptic data set.
        folder: folder of the files.
        pictures: number of images that are drawn.
        steps: step counts after each of which panoptic quality and mask AP are measured too; see StepwisePanoptic.
        marked: the model's own step count, marked in the figure of `steps`.
        detections: maximum number of detections of an image that count in AP.
    """
    PathManager.mkdirs(folder)
    shadow = _shadow(name, folder)
    evaluators: list[DatasetEvaluator] = [IfPredicted("panoptic_seg", PanopticEvaluator(name, folder))]
    metadata = MetadataCatalog.get(name)
    if metadata.thing_classes:
        instances = BoxAndMaskEvaluator(
            shadow,
            tasks=("bbox", "segm"),
            output_dir=folder,
            use_fast_impl=has_compiled_part(),
            max_dets_per_image=detections,
        )
        evaluators.append(IfPredicted("instances", instances))
    if metadata.stuff_classes[1:]:  # the first means all things
        semantic = SemSegEvaluator(shadow, output_dir=folder, sem_seg_loading_fn=_read_labels)
        evaluators.append(IfPredicted("sem_seg", semantic))
    usual = _with_pictures(PanopticPictures, pictures, name, folder, evaluators)
    if not steps:
        return usual
    return StepwiseEvaluator(
        usual,
        PanopticQualityByStep(name, steps),
        MaskPrecisionByStep(shadow, steps, detections),
        folder,
        marked=marked,
    )


def _shadow(name: str, folder: str) -> str:
    """Register a copy of the data set with the files that detectron2's evaluators look up in the catalog.

    The data set's own entries stay as they are.
    """
    records = DatasetCatalog.get(name)
    metadata = MetadataCatalog.get(name).as_dict()
    metadata.pop("name")
    set_instances(name, metadata, folder)
    shadow = f"{name}_as_files"
    if shadow in DatasetCatalog.list():
        DatasetCatalog.remove(shadow)
        MetadataCatalog.remove(shadow)
    DatasetCatalog.register(shadow, lambda: records)
    MetadataCatalog.get(shadow).set(**metadata)
    return shadow
