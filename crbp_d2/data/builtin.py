"""Built-in data sets: Pathfinder, toy scenes and detectron2's COCO-panoptic sets."""

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.file_io import PathManager

from .panoptic.reader import load_panoptic
from .panoptic.toy import register_toy_panoptic
from .pathfinder.dataset import register_presets

COCO_NAMES = (
    "coco_2017_train_panoptic_separated",
    "coco_2017_val_panoptic_separated",
    "coco_2017_val_100_panoptic_separated",
)


def register_builtin() -> None:
    """Register the built-in data sets in detectron2's catalogs; registered names stay unchanged.

    `pathfinder_<spec>_{train,val,stream}`, `toy_panoptic_{train,val}` and `toy_panoptic_hard_{train,val}` are located
    in the folder DETECTRON2_DATASETS at the time of the call. detectron2's `coco_2017_*_panoptic_separated` load from
    panoptic PNGs if their `panoptic_stuff_*` folder or instance JSON is missing.

    Importing crbp_d2 registers nothing; its trainer and tools call this function. Call it before a config that names
    these data sets is passed to detectron2's own trainer or loaders.
    """
    _rebind_coco()
    register_presets()
    for name, hard in (("toy_panoptic_train", False), ("toy_panoptic_hard_train", True)):
        if name not in DatasetCatalog.list():
            register_toy_panoptic(hard=hard)


def _rebind_coco() -> None:
    """Let detectron2's COCO names load from panoptic PNGs if the stuff folder or instance JSON is missing."""
    for name in COCO_NAMES:
        if name not in DatasetCatalog.list():
            continue
        original = DatasetCatalog[name]
        if getattr(original, "rebound", False):
            continue

        def load(name=name, original=original) -> list[dict]:
            metadata = MetadataCatalog.get(name)
            if PathManager.isdir(metadata.sem_seg_root) and PathManager.isfile(metadata.json_file):
                return original()
            return load_panoptic(
                metadata.panoptic_json, metadata.panoptic_root, metadata.image_root, metadata.as_dict()
            )

        load.rebound = True  # type: ignore[attr-defined]
        DatasetCatalog.remove(name)
        DatasetCatalog.register(name, load)
