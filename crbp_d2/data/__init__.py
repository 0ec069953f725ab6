"""Data sets and mappers. Importing this makes detectron2's COCO-panoptic names usable and registers Pathfinder's."""

from crbp_d2 import _detectron2  # noqa: F401, I001  (first: it explains a missing detectron2)

from .catalog import check_class_counts, check_dataset_available, check_image_channels, rebind_coco
from .panoptic import register_panoptic, semantic_map, write_instances_json
from .panoptic_mapper import PanopticDatasetMapper
from .pathfinder import register_pathfinder, register_presets
from .pathfinder_mapper import PathfinderDatasetMapper
from .pathfinder_spec import PathfinderSpec
from .pathfinder_stimuli import generate_pathfinder
from .toy_panoptic import register_toy_panoptic

__all__ = [
    "PanopticDatasetMapper",
    "PathfinderDatasetMapper",
    "PathfinderSpec",
    "check_class_counts",
    "check_dataset_available",
    "check_image_channels",
    "generate_pathfinder",
    "register_panoptic",
    "register_pathfinder",
    "register_toy_panoptic",
    "semantic_map",
    "write_instances_json",
]

rebind_coco()
register_presets()
