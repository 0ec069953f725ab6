"""All evaluators of a panoptic data set."""

import os

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator, DatasetEvaluator, DatasetEvaluators, SemSegEvaluator
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager

from crbp_d2.data import semantic_map, write_instances_json

from .panoptic import PanopticEvaluator
from .stepwise.evaluator import StepwiseEvaluator
from .stepwise.mask_precision import MaskPrecisionByStep
from .stepwise.panoptic_quality import PanopticQualityByStep
from .visualize import PanopticPictures


def build_panoptic_evaluator(cfg: CfgNode, name: str, folder: str) -> DatasetEvaluator:
    """Panoptic quality, box and mask AP, mIoU and cfg.TEST.PICTURES pictures of the data set `name`.

    With TEST.STEPS_TO_EVALUATE, panoptic quality and mask AP after each of those step counts too. AP is measured
    against the data set's instances JSON, or where it has none against instances derived from the panoptic
    PNGs. Files go to `folder`.
    """
    PathManager.mkdirs(folder)
    shadow, loading = _shadow(name, folder)
    evaluators = [
        PanopticEvaluator(name, folder),
        COCOEvaluator(shadow, tasks=("bbox", "segm"), output_dir=folder, use_fast_impl=_has_fast_cocoeval()),
        SemSegEvaluator(shadow, output_dir=folder, **loading),
    ]
    if cfg.TEST.PICTURES > 0:
        # First, because detectron2's panoptic evaluator changes the predictions it is given.
        evaluators.insert(0, PanopticPictures(name, os.path.join(folder, "pictures"), cfg.TEST.PICTURES))
    usual = DatasetEvaluators(evaluators)
    if not cfg.TEST.STEPS_TO_EVALUATE:
        return usual
    steps, recurrence = tuple(cfg.TEST.STEPS_TO_EVALUATE), cfg.MODEL.RECURRENCE
    return StepwiseEvaluator(
        usual,
        PanopticQualityByStep(name, steps),
        MaskPrecisionByStep(shadow, steps),
        folder,
        marked=recurrence.TEST_STEPS or recurrence.STEPS,
    )


def _shadow(name: str, folder: str) -> tuple[str, dict]:
    """A registered copy of the data set that has what detectron2's evaluators read from files.

    detectron2 takes the path of the instances and of each semantic map from the catalog. The copy
    leaves the data set's own entries as they are.
    """
    records = DatasetCatalog.get(name)
    derived = {r["pan_seg_file_name"]: r for r in records if "sem_seg_file_name" not in r}
    metadata = MetadataCatalog.get(name).as_dict()
    metadata.pop("name")
    if not PathManager.isfile(metadata.get("json_file") or ""):
        metadata["json_file"] = os.path.join(folder, "instances.json")
        if comm.is_main_process():
            write_instances_json(name, metadata["json_file"])
        comm.synchronize()
    shadow = f"{name}_as_files"
    if shadow in DatasetCatalog.list():
        DatasetCatalog.remove(shadow)
        MetadataCatalog.remove(shadow)
    with_files = [{"sem_seg_file_name": r.get("pan_seg_file_name"), **r} for r in records]
    DatasetCatalog.register(shadow, lambda: with_files)
    MetadataCatalog.get(shadow).set(**metadata)
    if not derived:
        return shadow, {}

    def load(path: str, copy: bool = False, dtype: type = np.uint8) -> np.ndarray:
        return semantic_map(derived[path]).astype(dtype)

    return shadow, {"sem_seg_loading_fn": load}


def _has_fast_cocoeval() -> bool:
    """Whether detectron2 was compiled, with the C++ form of the COCO evaluation."""
    try:
        from detectron2 import _C  # noqa: F401
    except ImportError:
        return False
    return True
