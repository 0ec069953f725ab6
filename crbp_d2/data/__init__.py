"""Data sets and mappers. Importing this leaves detectron2's catalogs unchanged; `register_builtin` fills them."""

from importlib import import_module

from crbp_d2.utils import _detectron2, _opencv  # noqa: F401, I001  (first: they explain a missing package)

from .builtin import register_builtin
from .checks import (
    check_class_counts,
    check_dataset_available,
    check_ignored_label,
    check_image_channels,
    check_instances,
    check_same_classes,
)
from .instances import InstanceDatasetMapper, register_instances
from .panoptic.dataset import register_panoptic, write_instances_json
from .panoptic.mapper import PanopticDatasetMapper
from .panoptic.reader import semantic_map
from .panoptic.toy import register_toy_panoptic
from .pathfinder.dataset import register_pathfinder
from .pathfinder.mapper import PathfinderDatasetMapper
from .pathfinder.spec import PathfinderSpec
from .pathfinder.stimuli import generate_pathfinder

__all__ = [
    "InstanceDatasetMapper",
    "PanopticDatasetMapper",
    "PathfinderDatasetMapper",
    "PathfinderSpec",
    "check_class_counts",
    "check_dataset_available",
    "check_ignored_label",
    "check_image_channels",
    "check_instance_dataset",
    "check_instances",
    "check_panoptic_dataset",
    "check_same_classes",
    "generate_pathfinder",
    "register_builtin",
    "register_instances",
    "register_panoptic",
    "register_pathfinder",
    "register_toy_panoptic",
    "semantic_map",
    "write_instances_json",
]


def __getattr__(name: str):
    # The doctor is a floor above, which imports this one.
    if name in ("check_panoptic_dataset", "check_instance_dataset"):
        return getattr(import_module("crbp_d2.doctor.report"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
