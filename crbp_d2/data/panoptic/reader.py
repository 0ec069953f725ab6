"""The reader of panoptic ground truth, used by training, evaluation and pictures.

Unambiguous deviations are normalized here (segment ids written as strings, palette and RGBA PNGs; areas and boxes are
those of the pixels), anything else is an error that names file, image and key.

H x W: image size; k: segments of an image.
"""

import logging
import os
from collections.abc import Iterable, Iterator
from math import ceil, floor

import numpy as np
from detectron2.structures import BoxMode
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import log_first_n

from ..images import is_file, read_json
from ..schema import is_box, whole_number
from .as_files import ThingAnnotation, semantic_path
from .faults import Fault, Faults
from .png import load_ids, locate
from .schema import SEGMENTS, VOID, check_panoptic_json

# Harmless faults of which one is logged when a data set is loaded; the others only concern other programs.
LOGGED = ("derived-key", "image-without-annotation", "box", "area", "no-mask")


def load_panoptic(panoptic_json: str, panoptic_root: str, image_root: str, metadata: dict) -> list[dict]:
    """Dataset dicts in detectron2's format.

    Each also has `pan_seg_file_name`, `segments_info` (contiguous `category_id`, `isthing`, `iscrowd`, `id`),
    `sem_seg_file_name` and, if there are thing classes, `annotations`: label maps and masks are read from the PNG on
    access.

    Args:
        metadata: dict of `panoptic_metadata`, or detectron2's for its COCO names.

    Raises:
        FileNotFoundError: the JSON, or an image or PNG that it names, does not exist.
        DatasetError: any other fault of the JSON; names file, image and key.
    """
    data = read_json(panoptic_json)
    faults = check_panoptic_json(data, panoptic_json)
    faults.raise_harmful()
    _check_registered(data["categories"], metadata, panoptic_json)
    images = {image["id"]: image for image in data["images"]}
    check_files_exist(
        panoptic_json,
        (
            (a["image_id"], folder, entry["file_name"], key)
            for a in data["annotations"]
            for entry, folder, key in (
                (images[a["image_id"]], image_root, "images[].file_name"),
                (a, panoptic_root, "annotations[].file_name"),
            )
        ),
    )
    log_harmless(faults)
    return [_record(a, images[a["image_id"]], panoptic_root, image_root, metadata) for a in data["annotations"]]


def truth_records(metadata) -> dict[object, dict]:
    """Image id -> record of the data set with these metadata, for evaluation."""
    records = load_panoptic(metadata.panoptic_json, metadata.panoptic_root, metadata.image_root, metadata.as_dict())
    return {record["image_id"]: record for record in records}


def _record(annotation: dict, image: dict, panoptic_root: str, image_root: str, metadata: dict) -> dict:
    segments = [_contiguous(segment, metadata) for segment in annotation["segments_info"]]
    record = {
        "file_name": f"{image_root}/{image['file_name']}",
        "image_id": image["id"],
        "height": image["height"],
        "width": image["width"],
        "pan_seg_file_name": f"{panoptic_root}/{annotation['file_name']}",
        "segments_info": segments,
    }
    if metadata["thing_classes"]:
        keys = ("bbox", "category_id", "iscrowd")
        source = (record["pan_seg_file_name"], record["width"], record["height"])
        record["annotations"] = [
            ThingAnnotation(
                {**{key: segment[key] for key in keys if key in segment}, "bbox_mode": BoxMode.XYWH_ABS},
                segment["id"],
                *source,
            )
            for segment in segments
            if segment["isthing"]
        ]
    record["sem_seg_file_name"] = semantic_path(record)
    return record


def _contiguous(segment: dict, metadata: dict) -> dict:
    isthing = segment["category_id"] in metadata["thing_dataset_id_to_contiguous_id"]
    ids = metadata[f"{'thing' if isthing else 'stuff'}_dataset_id_to_contiguous_id"]
    return {
        "id": whole_number(segment["id"]),
        "category_id": ids[segment["category_id"]],
        "isthing": isthing,
        "iscrowd": int(segment.get("iscrowd", 0)),
        **{key: segment[key] for key in ("bbox", "area") if key in segment},
    }


def _check_registered(categories: list[dict], metadata: dict, path: str) -> None:
    faults = Faults(path)
    for category in categories:
        kind = "thing" if category["isthing"] else "stuff"
        if category["id"] not in metadata[f"{kind}_dataset_id_to_contiguous_id"]:
            value = f"{category['id']!r} ({category['name']!r}, {kind}) is not in the registered metadata"
            faults.add("category-unlisted", "categories[].id", f"{value}: register the data set again")
    faults.raise_harmful()


def check_files_exist(path: str, files: Iterable[tuple[object, str, str, str]]) -> None:
    """Check that the files named by a JSON exist.

    Args:
        path: str, the JSON.
        files: image id, folder, file name and key of each.

    Raises:
        MissingFilesError: names JSON, image and key.
    """
    faults = Faults(path)
    present: dict[str, set[str]] = {}
    for image_id, folder, name, key in files:
        if folder not in present:  # one listing is faster than a question for each file
            present[folder] = set(PathManager.ls(folder)) if PathManager.isdir(folder) else set()
        if name not in present[folder] and not is_file(os.path.join(folder, name)):
            faults.add("missing-file", key, f"there is no {name!r} in {folder}", image_id)
    faults.raise_harmful()


def log_harmless(faults: Faults) -> None:
    """Log the first harmless fault that concerns training or evaluation, and their number."""
    if logged := [fault for fault in faults if fault.kind in LOGGED]:
        logging.getLogger(__name__).warning("%s; %d in total: crbp-check-dataset lists them", logged[0], len(logged))


def segment_indices(record: dict) -> np.ndarray:
    """H x W: n where the n-th of `segments_info` is, from 1, else 0; uint8, or int32 for many segments.

    Raises:
        FileNotFoundError: no PNG.
        DatasetError: the PNG cannot be read, has another size than the image, or other segments than the JSON; names
            PNG, image and key.
    """
    path, segments, image_id = record["pan_seg_file_name"], record["segments_info"], record.get("image_id", "")
    ids = load_ids(path, record["width"], record["height"], image_id)
    faults = Faults(path)
    indices = find_segments(ids, segments, faults, image_id)
    faults.raise_harmful()
    if fault := next(_deviations(indices, segments, path, image_id), None):
        log_first_n(logging.WARNING, f"{fault}; the pixels count. crbp-check-dataset lists all of them", name=__name__)
    return indices


def find_segments(ids: np.ndarray, segments: list[dict], faults: Faults, image_id: object) -> np.ndarray:
    """Indices of `locate`; adds ids that only the PNG or only the JSON has to `faults`."""
    indices, only_png, only_json = locate(ids, [segment["id"] for segment in segments])
    for where, unknown in (("only in the PNG", only_png), ("only in the JSON", only_json)):
        if len(unknown):
            more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
            faults.add("segments", f"{SEGMENTS}.id", f"{where}: {unknown.tolist()[:5]}{more}", image_id)
    return indices


def _deviations(indices: np.ndarray, segments: list[dict], path: str, image_id: object) -> Iterator[Fault]:
    """Segments whose area or box is not that of their pixels."""
    counted = np.bincount(indices.ravel(), minlength=len(segments) + 1)[1:]
    for k, (segment, area) in enumerate(zip(segments, counted.tolist(), strict=True), start=1):
        box = segment.get("bbox")
        if segment.get("area", area) != area:
            yield area_fault(path, image_id, segment, area)
        elif is_box(box) and not _holds(box, indices, k, area):
            yield box_fault(path, image_id, segment, "the PNG has it elsewhere")


def _holds(box: list[float], indices: np.ndarray, k: int, area: int) -> bool:
    """True if all pixels of segment k are in its box, within one pixel; cheaper than computing their box."""
    x, y, width, height = box
    columns, rows = (
        slice(max(0, floor(a) - 1), max(0, ceil(a + length) + 1)) for a, length in ((x, width), (y, height))
    )
    return np.count_nonzero(indices[rows, columns] == k) == area


def area_fault(path: str, image_id: object, segment: dict, area: int) -> Fault:
    value = f"segment {segment['id']!r}: {segment['area']!r}, but the PNG has {area} px"
    return Fault("area", path, image_id, f"{SEGMENTS}.area", value)


def box_fault(path: str, image_id: object, segment: dict, found: str) -> Fault:
    value = f"segment {segment['id']!r}: {segment['bbox']!r}, but {found} (x, y, width, height)"
    return Fault("box", path, image_id, f"{SEGMENTS}.bbox", value)


def semantic_table(segments_info: list[dict]) -> np.ndarray:
    """Semantic class of each value of `segment_indices`, uint8."""
    classes = [0 if segment["isthing"] else segment["category_id"] for segment in segments_info]
    return np.array([VOID, *classes], dtype=np.uint8)


def semantic_map(record: dict) -> np.ndarray:
    """H x W uint8: the semantic class of each pixel."""
    return semantic_table(record["segments_info"])[segment_indices(record)]
