"""Checks of named data sets, before anything is built."""

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.file_io import PathManager

from crbp_d2.utils.errors import did_you_mean

from .instances import checked_instances
from .panoptic.faults import DatasetError

# Metadata keys of the paths that a data set needs.
PANOPTIC_PATHS = ("panoptic_json", "panoptic_root", "image_root", "image_dir")
OTHER_PATHS = ("json_file", "image_root", "sem_seg_root", "image_dir", "gt_dir", "dirname")


def check_dataset_available(name: str, source: str = "") -> None:
    """Check that the files of a data set exist.

    Args:
        source: str, origin of the name, for the message.

    Raises:
        KeyError: no data set of this name.
        FileNotFoundError: names the missing file, the folder that was searched and an alternative.
    """
    if name not in DatasetCatalog.list():
        ours = [n for n in DatasetCatalog.list() if "panoptic" in n or "pathfinder" in n]
        raise KeyError(
            f"{source}no data set is named {name!r}; registered are, among others: {', '.join(ours)}"
            f"{did_you_mean(name, DatasetCatalog.list())}"
        )
    metadata = MetadataCatalog.get(name)
    if hasattr(metadata, "check_available"):
        metadata.check_available()
        return
    needed = PANOPTIC_PATHS if hasattr(metadata, "panoptic_json") else OTHER_PATHS
    for path in (metadata.get(key) for key in needed):
        if path and not PathManager.exists(path):
            root = os.environ.get("DETECTRON2_DATASETS", "datasets")
            raise FileNotFoundError(
                f"The data set {name} is missing: there is no {os.path.abspath(path)} (DETECTRON2_DATASETS is "
                f"{root!r}, see docs/GETTING_STARTED.md); `make demo` runs without it."
            )


def check_instances(cfg: CfgNode, name: str) -> None:
    """Check the JSON of an instance data set in COCO's format, and that objects have masks if MODEL.MASK_ON.

    Raises:
        FileNotFoundError: no such JSON.
        DatasetError: names file, image, annotation and key.
    """
    metadata = MetadataCatalog.get(name)
    if metadata.get("evaluator_type") != "coco" or not metadata.get("json_file"):
        return
    faults = checked_instances(metadata.json_file, metadata.image_root)
    boxes = [fault for fault in faults if fault.kind == "no-mask"]
    if boxes and cfg.MODEL.MASK_ON:
        hint = "but MODEL.MASK_ON is True; set it to False to train on boxes only"
        raise DatasetError([replace(fault, value=f"{fault.value}, {hint}") for fault in boxes])


def check_class_counts(cfg: CfgNode, name: str) -> None:
    """Check that the model's class counts match a panoptic data set.

    Raises:
        ValueError: names the config key and both counts.
    """
    for key, value in wrong_class_counts(cfg, MetadataCatalog.get(name).as_dict()):
        raise ValueError(f"{key} {value.replace('the data set', f'the data set {name}')}: set it to the latter")


def check_ignored_label(cfg: CfgNode, name: str) -> None:
    """Check that a model with semantic maps ignores the pixels that a data set does not annotate.

    Raises:
        ValueError: names the config key and both labels.
    """
    label, given = MetadataCatalog.get(name).get("ignore_label"), cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE
    has_maps = cfg.MODEL.META_ARCHITECTURE.endswith(("PanopticFPN", "SemanticSegmentor"))
    if has_maps and label is not None and label != given:
        raise ValueError(
            f"MODEL.SEM_SEG_HEAD.IGNORE_VALUE is {given}, but {name} has {label} where nothing is annotated"
        )


def check_same_classes(names: Sequence[str]) -> None:
    """Check that the data sets of a run give each class the same number.

    Raises:
        ValueError: names two of them, and the first class that differs.
    """
    for key in ("thing_classes", "stuff_classes"):
        tables = [(name, list(MetadataCatalog.get(name).get(key, ()))) for name in names]
        for (first, expected), (name, classes) in itertools.pairwise(tables):
            for k, (a, b) in enumerate(itertools.zip_longest(expected, classes)):
                if a != b:
                    raise ValueError(
                        f"{first} and {name} do not have the same {key}: number {k} is {a!r} in the first and {b!r} in "
                        "the second, so one would be taken for the other"
                    )


def check_image_channels(cfg: CfgNode, name: str) -> None:
    """Check that the model takes the number of channels that the images of a data set have, if known.

    Raises:
        ValueError: names the config key and both numbers.
    """
    channels = MetadataCatalog.get(name).get("image_channels")
    if channels and len(cfg.MODEL.PIXEL_MEAN) != channels:
        raise ValueError(
            f"MODEL.PIXEL_MEAN has {len(cfg.MODEL.PIXEL_MEAN)} values, but the images of {name} have {channels} "
            f"channel{'s' * (channels > 1)}"
        )


# key, node, metadata, models without such a head
COUNTS = (
    ("MODEL.ROI_HEADS.NUM_CLASSES", "ROI_HEADS", "thing_classes", ("SemanticSegmentor", "RetinaNet")),
    ("MODEL.RETINANET.NUM_CLASSES", "RETINANET", "thing_classes", ("SemanticSegmentor", "GeneralizedRCNN", "FPN")),
    ("MODEL.SEM_SEG_HEAD.NUM_CLASSES", "SEM_SEG_HEAD", "stuff_classes", ("GeneralizedRCNN", "RetinaNet")),
)


def wrong_class_counts(cfg: CfgNode, metadata: Mapping) -> Iterator[tuple[str, str]]:
    """Each key of the model's heads with another class count than the data set's metadata, and a description."""
    for key, node, classes, without in COUNTS:
        if cfg.MODEL.META_ARCHITECTURE.endswith(without):
            continue
        count, given = len(metadata.get(classes, ())), cfg.MODEL[node].NUM_CLASSES
        if count and count != given:
            both = classes == "stuff_classes" and metadata[classes][0] == "things"
            note = " (the stuff classes and one for all things)" if both else ""
            yield key, f"is {given}, but the data set has {count}{note}"
