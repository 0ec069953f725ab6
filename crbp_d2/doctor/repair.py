"""A repaired copy of a panoptic data set: fixes everything that can be derived from the files.

Areas, boxes, missing `iscrowd`, `area` and `bbox`; duplicate entries; numbers written as strings; invalid colors;
sizes of images; segments without pixels; palette, RGBA and grey PNGs, also of images. Nothing is guessed.
"""

import io
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from crbp_d2.data.images import ImageError, UnreadableImageError, decoding, is_file, local, read_header, read_json
from crbp_d2.data.panoptic.faults import DatasetError
from crbp_d2.data.panoptic.png import MOST_SEGMENTS, boxes, decode_ids, encode_ids, locate
from crbp_d2.data.panoptic.schema import check_panoptic_json
from crbp_d2.data.schema import is_color, is_id, is_inside, is_table, whole_number
from crbp_d2.utils.files import write_json

from .report import PanopticFiles

UNUSABLE = (FileNotFoundError, UnreadableImageError, ImageError)


def repair_panoptic_dataset(files: PanopticFiles, out: str) -> PanopticFiles:
    """Write a repaired copy into the folder `out`: panoptic.json, panoptic/, images/ and instances.json.

    Files that need no repair become hard links if the file system supports them.

    Raises:
        FileExistsError: `out` is not empty.
        DatasetError, ValueError: the JSON is not in this format.
    """
    if os.path.exists(out) and os.listdir(out):
        raise FileExistsError(f"{out} is not empty: name a new folder")
    data = read_json(files.panoptic_json)
    if beyond := [f for f in check_panoptic_json(data, files.panoptic_json) if f.kind == "detection-json"]:
        raise DatasetError(beyond)
    if not isinstance(data, dict) or not all(is_table(data.get(k)) for k in ("images", "annotations", "categories")):
        raise ValueError("images, annotations and categories are needed, lists of objects")
    copy = PanopticFiles(
        os.path.join(out, "panoptic.json"),
        os.path.join(out, "panoptic"),
        os.path.join(out, "images"),
        os.path.join(out, "instances.json") if files.instances_json else None,
    )
    for folder in (copy.panoptic_root, copy.image_root):
        os.makedirs(folder, exist_ok=True)
    _repair_json(data)
    images = {i["id"]: i for i in data["images"] if is_id(i.get("id"))}
    for annotation in data["annotations"]:
        image = images.get(annotation.get("image_id")) if is_id(annotation.get("image_id")) else None
        _repair_png(annotation, image, files, copy)
    for image in data["images"]:
        _copy_image(image.get("file_name"), files.image_root, copy.image_root)
    write_json(copy.panoptic_json, data)
    if files.instances_json:
        detections = read_json(files.instances_json)
        if isinstance(detections, dict):
            _repair_instances(detections)
        write_json(copy.instances_json, detections)
    return copy


def _repair_json(data: dict) -> None:
    images, categories = (_renumbered(data, table) for table in ("images", "categories"))
    for category in data["categories"]:
        _repair_flag(category, "isthing")
        if not is_color(category.get("color", [0, 0, 0])):
            del category["color"]  # another one is chosen
    for annotation in data["annotations"]:
        _renumber(annotation, "image_id", images)
        segments = annotation.get("segments_info")
        if not is_table(segments):
            continue
        for segment in segments:
            number = whole_number(_whole(segment.get("id")))
            if number is not None:
                segment["id"] = number
            _renumber(segment, "category_id", categories)
            segment.setdefault("iscrowd", 0)
            _repair_flag(segment, "iscrowd")
        annotation["segments_info"] = _once(segments, ("id", "category_id"))
    known = {i["id"] for i in data["images"] if is_id(i.get("id"))}
    annotations = _once(data["annotations"])
    data["annotations"] = [a for a in annotations if is_id(a.get("image_id")) and a["image_id"] in known]
    annotated = {a["image_id"] for a in data["annotations"]}
    data["images"] = [i for i in data["images"] if not is_id(i.get("id")) or i["id"] in annotated]


def _whole(value: object) -> object:
    return int(value) if type(value) is float and value.is_integer() else value


def _repair_flag(entry: dict, key: str) -> None:
    if (value := _whole(entry.get(key))) in ("0", "1", 0, 1):
        entry[key] = int(value)


def _numbers(ids: Iterable) -> dict[str, object]:
    """Spelling of an id -> the id: numbers if all can be converted, else unchanged."""
    ids = [value for value in map(_whole, ids) if is_id(value)]
    numbers: dict[str, object] = {str(value): whole_number(value) for value in ids}
    clash = None in numbers.values() or len(set(numbers.values())) < len(numbers)
    return {str(value): value for value in ids} if clash else numbers


def _renumbered(data: dict, table: str) -> dict[str, object]:
    """`_numbers` of a table, whose ids become these and whose repetitions go."""
    numbers = _numbers(entry.get("id") for entry in data[table])
    for entry in data[table]:
        _renumber(entry, "id", numbers)
    data[table] = _once(data[table])
    return numbers


def _renumber(entry: dict, key: str, numbers: dict[str, object]) -> None:
    value = _whole(entry.get(key))
    if is_id(value):
        entry[key] = numbers.get(str(value), value)


def _once(entries: list[dict], keys: tuple[str, ...] = ()) -> list[dict]:
    """Without repetitions: entries that are equal, or equal in these keys."""
    seen, kept = set(), []
    for entry in entries:
        mark = json.dumps({key: entry.get(key) for key in keys} if keys else entry, sort_keys=True)
        if mark not in seen:
            seen.add(mark)
            kept.append(entry)
    return kept


def _repair_png(annotation: dict, image: dict | None, files: PanopticFiles, copy: PanopticFiles) -> None:
    name, segments = annotation.get("file_name"), annotation.get("segments_info")
    if not is_inside(name) or not is_file(f"{files.panoptic_root}/{name}"):
        return
    listed = {s["id"]: s for s in segments if whole_number(s.get("id"))} if is_table(segments) else {}
    size = _true_size(image, files)
    try:
        ids, canonical = _read_ids(f"{files.panoptic_root}/{name}", set(listed), size)
    except UNUSABLE:
        ids, canonical = None, True
    if ids is None or canonical:
        _link(name, files.panoptic_root, copy.panoptic_root)
    else:
        _write(f"{copy.panoptic_root}/{name}", encode_ids(ids))
    if ids is None:
        return
    if image is not None and size == ids.shape[::-1]:
        image["width"], image["height"] = size
    if is_table(segments) and len(listed) == len(segments) and all(0 < number < MOST_SEGMENTS for number in listed):
        indices, _, nowhere = locate(ids, list(listed))
        areas = np.bincount(indices.ravel(), minlength=len(listed) + 1)[1:].tolist()
        found = boxes(indices, len(listed)).tolist()
        for segment, area, box in zip(listed.values(), areas, found, strict=True):
            if area:
                segment.update(area=area, bbox=box)
        # A PNG that has none of them is likely that of another image.
        if len(nowhere) < len(listed):
            annotation["segments_info"] = [s for s in segments if s["id"] not in set(nowhere.tolist())]


def _true_size(image: dict | None, files: PanopticFiles) -> tuple[int, int] | None:
    if image is None or not is_inside(image.get("file_name")):
        return None
    try:
        return read_header(f"{files.image_root}/{image['file_name']}").shown
    except UNUSABLE:
        return None


def _read_ids(path: str, listed: set[int], size: tuple[int, int] | None) -> tuple[np.ndarray | None, bool]:
    """H x W ids of a PNG of any mode, None where they cannot be told; whether the file is as it should be."""
    with decoding(path) as (image, header):
        if size is not None and size not in (header.size, header.shown):
            return None, False
        if header.bits > 8 and header.mode == "RGB":
            return None, False
        ids = decode_ids(image) if header.mode in ("RGB", "RGBA", "P", "PA") else np.asarray(image).astype(np.int64)
        if ids.ndim != 2 or not set(np.unique(ids).tolist()) <= {0, *listed}:
            return (ids, True) if header.mode == "RGB" and header.orientation == 1 else (None, False)
        if header.orientation != 1 and size != header.size:
            return None, False
        return ids, header.mode == "RGB" and header.orientation == 1 and header.format == "PNG"


def _repair_instances(data: dict) -> None:
    if not all(is_table(data.get(table)) for table in ("images", "categories", "annotations")):
        return
    images, categories = (_renumbered(data, table) for table in ("images", "categories"))
    data["annotations"] = _once(data["annotations"])
    for number, annotation in enumerate(data["annotations"], start=1):
        _renumber(annotation, "image_id", images)
        _renumber(annotation, "category_id", categories)
        annotation.update(id=number, iscrowd=annotation.get("iscrowd", 0))


def _link(name: object, source: str, target: str) -> None:
    if not is_inside(name) or not is_file(f"{source}/{name}"):
        return
    old, new = local(f"{source}/{name}"), local(f"{target}/{name}")
    os.makedirs(os.path.dirname(new), exist_ok=True)
    if os.path.exists(new):
        return
    try:
        os.link(os.path.realpath(old), new)
    except OSError:  # another file system, or one without links
        shutil.copyfile(old, new)


def _copy_image(name: object, source: str, target: str) -> None:
    """A PNG of another mode becomes the RGB one that it is read as, without loss; a JPEG stays what it is."""
    if not is_inside(name) or not is_file(f"{source}/{name}"):
        return
    try:
        with decoding(f"{source}/{name}") as (image, header):
            if (header.format, header.bits > 8) == ("PNG", False) and header.mode != "RGB" and header.orientation == 1:
                content = io.BytesIO()
                image.convert("RGB").save(content, "PNG")
                _write(f"{target}/{name}", content.getvalue())
                return
    except UNUSABLE:  # copied unchanged, too
        pass
    _link(name, source, target)


def _write(path: str, content: bytes) -> None:
    os.makedirs(os.path.dirname(local(path)), exist_ok=True)
    Path(local(path)).write_bytes(content)
