"""Instance data sets in COCO's detection format: registration, loading and mapping."""

import os
from functools import lru_cache

import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog
from detectron2.data import detection_utils as utils
from detectron2.structures import BitMasks, BoxMode
from detectron2.utils.file_io import PathManager

from .images import ImageError, check_header, decoding, header_fault, local, read_header, read_json
from .instance_schema import check_instances_json, complete_instances
from .masks import as_run_lengths, compressed
from .panoptic.dataset import free_registered, rank
from .panoptic.faults import Faults
from .panoptic.reader import check_files_exist, log_harmless
from .schema import CATEGORY, check_category_table, has_lists

# Images whose size is compared before a training.
SAMPLE = 16


def register_instances(name: str, instances_json: str, image_root: str) -> None:
    """Register a data set of instances in COCO's detection format.

    Only the categories are read now. The JSON is checked when the data set is loaded; `check_instances` of
    crbp_d2.data does so before a training.

    Raises:
        FileNotFoundError: no such JSON.
        ValueError: invalid categories, or `name` is registered with other paths.
    """
    paths = {"json_file": str(instances_json), "image_root": str(image_root)}
    data, faults = read_json(instances_json), Faults(instances_json)
    if has_lists(data, ("categories",), faults):
        check_category_table(data["categories"], CATEGORY, faults)
    faults.raise_harmful()
    free_registered(name, paths)
    categories = sorted(data["categories"], key=lambda category: rank(category["id"]))
    numbers = {category["id"]: k for k, category in enumerate(categories)}
    DatasetCatalog.register(name, lambda: load_instances(paths["json_file"], paths["image_root"], numbers))
    MetadataCatalog.get(name).set(
        **paths,
        evaluator_type="coco",
        thing_classes=[category["name"] for category in categories],
        thing_dataset_id_to_contiguous_id=numbers,
    )


def load_instances(instances_json: str, image_root: str, numbers: dict) -> list[dict]:
    """Dataset dicts in detectron2's format.

    Args:
        numbers: category id -> class.

    Raises:
        FileNotFoundError, DatasetError: see checked_instances.
    """
    log_harmless(checked_instances(instances_json, image_root))
    data = complete_instances(read_json(instances_json))
    records = {
        image["id"]: {
            "file_name": os.path.join(image_root, image["file_name"]),
            "image_id": image["id"],
            "height": image["height"],
            "width": image["width"],
            "annotations": [],
        }
        for image in data["images"]
    }
    for annotation in data["annotations"]:
        records[annotation["image_id"]]["annotations"].append(_instance(annotation, numbers))
    return [records[image_id] for image_id in sorted(records, key=rank)]


def _instance(annotation: dict, numbers: dict) -> dict:
    instance = {key: annotation[key] for key in ("iscrowd", "bbox")}
    instance |= {"bbox_mode": BoxMode.XYWH_ABS, "category_id": numbers[annotation["category_id"]]}
    if mask := annotation.get("segmentation"):
        instance["segmentation"] = compressed(mask) if isinstance(mask, dict) else mask
    return instance


def checked_instances(path: str, image_root: str) -> Faults:
    """The harmless faults of a data set; checked once as long as its JSON does not change.

    The sizes of the first images are compared with the JSON, which shows whether width and height are exchanged.

    Raises:
        FileNotFoundError: the JSON, or an image that it names, does not exist.
        DatasetError: any other harmful fault; names file, image, annotation and key.
    """
    place = local(PathManager.get_local_path(str(path))) if PathManager.isfile(local(str(path))) else ""
    stamp = (os.stat(place).st_mtime_ns, os.stat(place).st_size) if place else None
    return _checked(str(path), str(image_root), stamp)


@lru_cache(maxsize=8)  # keeps no exceptions
def _checked(path: str, image_root: str, stamp: tuple | None) -> Faults:
    data = read_json(path)
    faults = check_instances_json(data, path)
    faults.raise_harmful()
    files = [(i["id"], image_root, i["file_name"], "images[].file_name") for i in data["images"]]
    check_files_exist(path, files)
    for image in data["images"][:SAMPLE]:
        header = read_header(os.path.join(image_root, image["file_name"]))
        if fault := header_fault(header, image["width"], image["height"], "the JSON"):
            faults.add(fault[0], "images[].width", f"{image['file_name']} {fault[1]}", image["id"])
    faults.raise_harmful()
    return faults


class InstanceDatasetMapper(DatasetMapper):
    """detectron2's DatasetMapper with errors that name the file, a check of semantic labels, and run-length masks.

    Images with run-length masks, and all images if INPUT.CROP is enabled, get BitMasks instead of PolygonMasks,
    whatever INPUT.MASK_FORMAT is; detectron2's heads take both.

    Args:
        semantic_classes: int, number of semantic classes; 0 for no check of the labels.
        ignore_label: int, semantic label of pixels without annotation.

    Raises (when called):
        FileNotFoundError: a file does not exist.
        ValueError: names a file that cannot be read, has another size than its record or an invalid label; masks are
            trained on (MODEL.MASK_ON), but an instance has a box only.
    """

    @configurable
    def __init__(self, *args, semantic_classes: int = 0, ignore_label: int = 255, **kwargs):
        super().__init__(*args, **kwargs)
        self.semantic_classes = semantic_classes
        self.ignore_label = ignore_label

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict:
        head = cfg.MODEL.SEM_SEG_HEAD
        labels = {"semantic_classes": head.NUM_CLASSES, "ignore_label": head.IGNORE_VALUE}
        return {**super().from_config(cfg, is_train), **labels}

    def __call__(self, dataset_dict: dict) -> dict:
        try:
            result = super().__call__(dataset_dict)
        except Exception:
            _check_readable(dataset_dict)  # names the file if it is the reason
            raise
        if self.is_train and "sem_seg" in result:
            self.check_labels(result["sem_seg"], dataset_dict.get("sem_seg_file_name"))
        return result

    def check_labels(self, labels: torch.Tensor, path: str) -> None:
        """Raise an ImageError that names the file if it has a label that the model has no class for."""
        invalid = (labels != self.ignore_label) & ((labels < 0) | (labels >= self.semantic_classes))
        if self.semantic_classes and invalid.any():
            raise ImageError(
                f"{path} has the label {labels[invalid][0].item()}; allowed: 0 to {self.semantic_classes - 1}, and "
                f"{self.ignore_label} (ignored)"
            )

    def _transform_annotations(self, dataset_dict: dict, transforms, image_shape) -> None:
        masks = [a.get("segmentation") for a in dataset_dict["annotations"] if not a.get("iscrowd", 0)]
        if self.use_instance_mask and None in masks:
            raise ValueError(
                f"{dataset_dict['file_name']} has an instance without `segmentation`, but MODEL.MASK_ON is True; set "
                "it to False to train on boxes only"
            )
        if self.use_instance_mask and not masks:
            # detectron2 leaves out gt_masks here, which it needs after a crop.
            dataset_dict.pop("annotations")
            dataset_dict["instances"] = utils.annotations_to_instances([], image_shape)
            dataset_dict["instances"].gt_masks = BitMasks(torch.zeros(0, *image_shape, dtype=torch.bool))
            return
        configured = self.instance_mask_format
        if self.recompute_boxes:  # after a crop, for which detectron2's polygons need shapely
            size = dataset_dict["height"], dataset_dict["width"]
            for annotation in dataset_dict["annotations"]:
                annotation["segmentation"] = as_run_lengths(annotation["segmentation"], *size)
        if self.recompute_boxes or any(isinstance(mask, dict) for mask in masks):
            self.instance_mask_format = "bitmask"
        try:
            super()._transform_annotations(dataset_dict, transforms, image_shape)
        finally:
            self.instance_mask_format = configured


def _check_readable(record: dict) -> None:
    for key in ("file_name", "sem_seg_file_name"):
        if key in record and PathManager.isfile(record[key]):
            with decoding(record[key]) as (image, header):
                if "width" in record and "height" in record:
                    check_header(header, record[key], record["width"], record["height"])
                image.load()
