"""Data sets and mappers. Importing this makes detectron2's COCO-panoptic names and the toy scenes usable."""

from crbp_d2 import _detectron2  # noqa: F401, I001  (first: it explains a missing detectron2)

from .catalog import check_class_counts, check_dataset_available, rebind_coco
from .panoptic import register_panoptic, semantic_map, write_instances_json
from .panoptic_mapper import PanopticDatasetMapper
from .toy_panoptic import register_toy_panoptic

__all__ = [
    "PanopticDatasetMapper",
    "check_class_counts",
    "check_dataset_available",
    "register_panoptic",
    "register_toy_panoptic",
    "semantic_map",
    "write_instances_json",
]

rebind_coco()
