"""The one reader of panoptic ground truth: training, evaluation, pictures and the data doctor all read by it.

What can be read in one way only is normalized here (ids of segments written as strings, palette and RGBA PNGs; areas
and boxes are those of the pixels), anything else is an error that names file, image and key.

H x W: image size; k: segments of an image.
"""

import logging
from math import ceil, floor

import numpy as np
from detectron2.structures import BoxMode
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import log_first_n

from ..images import Header, ImageError, UnreadableImageError, decoding, is_file, read_json
from ..values import is_box, whole_number
from .as_files import ThingAnnotation, semantic_path
from .faults import DatasetError, Fault, Faults, MissingFilesError
from .schema import VOID, check_panoptic_json

# Of these, a word is logged when a data set is loaded; other harmless faults concern other programs only.
TOLD = ("derived-key", "image-without-annotation")


def load_panoptic(panoptic_json: str, panoptic_root: str, image_root: str, metadata: dict) -> list[dict]:
    """Dataset dicts in detectron2's format.

    Beside the usual keys each has `pan_seg_file_name`, `segments_info` (contiguous `category_id`,
    `isthing`, `iscrowd`, `id`), `sem_seg_file_name` and, where there are thing classes, `annotations`: label maps and
    masks are read from the PNG when they are asked for.

    Args:
        metadata: of `panoptic_metadata`, or detectron2's for its COCO names.

    Raises:
        FileNotFoundError: the JSON, or an image or PNG that it names, is not there.
        DatasetError: anything else that is wrong with the JSON; names file, image and key.
    """
    data = read_json(panoptic_json)
    faults = check_panoptic_json(data, panoptic_json)
    _raise_harmful(faults)
    _raise_harmful(_not_in_metadata(data["categories"], metadata, panoptic_json))
    images = {image["id"]: image for image in data["images"]}
    _raise_missing(data["annotations"], images, panoptic_json, panoptic_root, image_root)
    told = [fault for fault in faults if fault.kind in TOLD]
    if told:
        logging.getLogger(__name__).warning("%s; %d such in all: crbp-check-dataset lists them", told[0], len(told))
    return [_record(a, images[a["image_id"]], panoptic_root, image_root, metadata) for a in data["annotations"]]


def truth_records(metadata) -> dict[object, dict]:
    """Image id -> record of the data set that detectron2's metadata describe, for evaluation."""
    records = load_panoptic(
        metadata.panoptic_json, metadata.panoptic_root, metadata.image_root, metadata.as_dict()
    )  # fmt: skip
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


def _not_in_metadata(categories: list[dict], metadata: dict, path: str) -> list[Fault]:
    faults = Faults(path)
    for category in categories:
        kind = "thing" if category["isthing"] else "stuff"
        ids = metadata[f"{kind}_dataset_id_to_contiguous_id"]
        if category["id"] not in ids:
            value = f"{category['id']!r} ({category['name']!r}, {kind}) is not in the metadata that is registered"
            faults.add("category-unlisted", "categories[].id", value)
    return list(faults)


def _raise_harmful(faults: list[Fault]) -> None:
    harmful = [fault for fault in faults if not fault.harmless]
    if harmful:
        raise DatasetError(harmful)


def _raise_missing(annotations: list[dict], images: dict, path: str, panoptic_root: str, image_root: str) -> None:
    faults = Faults(path)
    # One listing of a folder is faster than a question for each file.
    present = {folder: _listing(folder) for folder in {image_root, panoptic_root}}
    for annotation in annotations:
        image_id = annotation["image_id"]
        for entry, folder, key in (
            (images[image_id], image_root, "images[].file_name"),
            (annotation, panoptic_root, "annotations[].file_name"),
        ):
            name = entry["file_name"]
            if name not in present[folder] and not is_file(f"{folder}/{name}"):
                faults.add("missing-file", key, f"there is no {name!r} in {folder}", image_id)
    if missing := list(faults):
        raise MissingFilesError(missing)


def _listing(folder: str) -> set[str]:
    return set(PathManager.ls(folder)) if PathManager.isdir(folder) else set()


def read_segment_ids(path: str, width: int, height: int) -> np.ndarray:
    """H x W int32: the ids in a panoptic PNG, 0 where there is none.

    Palette and RGBA PNGs are read like RGB ones.

    Raises:
        FileNotFoundError: no such file.
        UnreadableImageError: it is cut or garbled.
        ImageError: another size than `width` x `height`, or pixels that are no ids.
    """
    with decoding(path) as (image, header):
        if fault := header_fault(header, width, height):
            raise ImageError(f"{path} {fault[1]}")
        pixels = np.asarray(image.convert("RGB")).astype(np.int32)
    return pixels @ np.array([1, 256, 65536], np.int32)


def header_fault(header: Header, width: int, height: int) -> tuple[str, str] | None:
    """Kind and value of what makes a panoptic PNG useless, by its header alone."""
    if header.size != (width, height):
        return (
            "size",
            f"is {header.size[0]} x {header.size[1]} px, but the JSON says {width} x {height} (width, height)",
        )
    if header.format != "PNG":
        return "png-format", f"is a {header.format}, which does not keep ids"
    if header.bits > 8 or header.mode not in ("RGB", "RGBA", "P", "PA"):
        what = f"{header.bits}-bit, mode {header.mode}" if header.mode != "L" else "grey"
        return "bits" if header.bits > 8 else "png-format", f"is {what}; ids need 3 channels of 8 bits"
    if header.orientation != 1:
        return "orientation", f"has the EXIF orientation {header.orientation}, which not all programs follow"
    return None


def segment_indices(record: dict) -> np.ndarray:
    """H x W: k + 1 where segment k of `segments_info` is, 0 where none is; uint8, or int32 for many segments.

    Raises:
        FileNotFoundError: no PNG.
        DatasetError: the PNG cannot be read, has another size than the image, or its segments are not those of the
            JSON; names PNG, image and key.
    """
    path, segments = record["pan_seg_file_name"], record["segments_info"]
    try:
        ids = read_segment_ids(path, record["width"], record["height"])
    except (UnreadableImageError, ImageError) as error:
        kind = "unreadable" if isinstance(error, UnreadableImageError) else "png-format"
        raise DatasetError([_png_fault(record, kind, "annotations[].file_name", str(error))]) from error
    indices, only_png, only_json = locate(ids, [segment["id"] for segment in segments])
    if len(only_png) or len(only_json):
        value = f"ids only in the PNG {only_png.tolist()[:5]}, only in the JSON {only_json.tolist()[:5]}"
        raise DatasetError([_png_fault(record, "segments", "annotations[].segments_info[].id", value)])
    _tell_derived(indices, record)
    return indices


def _tell_derived(indices: np.ndarray, record: dict) -> None:
    """Log a word on the first segment whose area or box is not that of its pixels."""
    segments = record["segments_info"]
    counted = np.bincount(indices.ravel(), minlength=len(segments) + 1)[1:]
    for k, (segment, area) in enumerate(zip(segments, counted.tolist(), strict=True), start=1):
        box = segment.get("bbox")
        if segment.get("area", area) != area:
            fault = area_fault(record["pan_seg_file_name"], record.get("image_id", ""), segment, area)
        elif is_box(box) and not _holds(box, indices, k, area):
            fault = box_fault(
                record["pan_seg_file_name"], record.get("image_id", ""), segment, "the PNG has it elsewhere"
            )
        else:
            continue
        log_first_n(logging.WARNING, f"{fault}; the pixels count. crbp-check-dataset lists all such", name=__name__)
        return


def _holds(box: list[float], indices: np.ndarray, k: int, area: int) -> bool:
    """Whether all pixels of segment k are in its box, give or take one pixel; cheaper than their own box."""
    x, y, width, height = box
    columns, rows = (
        slice(max(0, floor(a) - 1), max(0, ceil(a + length) + 1)) for a, length in ((x, width), (y, height))
    )
    return np.count_nonzero(indices[rows, columns] == k) == area


def _png_fault(record: dict, kind: str, key: str, value: str) -> Fault:
    return Fault(kind, record["pan_seg_file_name"], record.get("image_id", ""), key, value)


def area_fault(path: str, image_id: object, segment: dict, area: int) -> Fault:
    value = f"segment {segment['id']!r}: {segment['area']!r}, but the PNG has {area} px"
    return Fault("area", path, image_id, "annotations[].segments_info[].area", value)


def box_fault(path: str, image_id: object, segment: dict, found: str) -> Fault:
    value = f"segment {segment['id']!r}: {segment['bbox']!r}, but {found} (x, y, width, height)"
    return Fault("box", path, image_id, "annotations[].segments_info[].bbox", value)


def locate(ids: np.ndarray, listed: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where each listed segment is.

    Args:
        ids: H x W of the PNG.
        listed: the k ids of the JSON, different ones above 0.

    Returns:
        H x W indices, see `segment_indices`; the ids that are not listed; those that are listed but nowhere.
    """
    order = np.array([0, *listed], np.int64)
    ranks = np.argsort(order)
    found = np.searchsorted(order[ranks], ids)
    found[found == len(order)] = 0
    unknown = order[ranks][found] != ids
    indices = ranks.astype(np.uint8 if len(order) <= 256 else np.int32)[found]
    only_png = np.zeros(0, np.int64)
    if unknown.any():
        only_png = np.unique(ids[unknown])
        indices[unknown] = 0
    counts = np.bincount(indices.ravel(), minlength=len(order))[1:]
    return indices, only_png, order[1:][counts == 0]


def boxes(indices: np.ndarray, count: int) -> np.ndarray:
    """count x 4: x, y, width and height of the segments 1 to count in an H x W map, zeros where one is nowhere."""
    height, width = indices.shape
    rows, columns = np.zeros((count + 1, height), bool), np.zeros((count + 1, width), bool)
    rows[indices, np.arange(height)[:, None]] = True
    columns[indices, np.arange(width)[None, :]] = True
    edges = []
    for present, length in ((columns, width), (rows, height)):
        first, last = present.argmax(axis=1), length - 1 - present[:, ::-1].argmax(axis=1)
        edges.append((first, last + 1 - first))
    (x, w), (y, h) = edges
    return np.stack([x, y, w, h], axis=1)[1:] * np.logical_or.reduce(rows[1:], axis=1)[:, None]


def semantic_table(segments_info: list[dict]) -> np.ndarray:
    """Semantic class of each value of `segment_indices`, uint8."""
    classes = [0 if segment["isthing"] else segment["category_id"] for segment in segments_info]
    return np.array([VOID, *classes], dtype=np.uint8)


def semantic_map(record: dict) -> np.ndarray:
    """H x W uint8: the semantic class of each pixel."""
    return semantic_table(record["segments_info"])[segment_indices(record)]
