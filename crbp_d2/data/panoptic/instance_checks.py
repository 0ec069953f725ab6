"""Checks of a COCO-detection JSON that stands beside a panoptic one."""

from collections import Counter
from typing import Any

from pycocotools import mask as coco_mask

from ..values import is_box, is_flag, is_id, is_length, is_number, short
from .faults import Fault, Faults
from .schema import MISSING, has_lists

KEYS = {
    "id": (is_id, "a whole number or a string"),
    "image_id": (is_id, "a whole number or a string"),
    "category_id": (is_id, "a whole number or a string"),
    "iscrowd": (is_flag, "0 or 1"),
    "area": (is_number, "a number"),
    "bbox": (is_box, "x, y, width and height"),
}
# Areas of polygons are those of their outlines, not of the pixels they are drawn with.
RATIO, SLACK = 2.0, 64


def check_instances_json(data: Any, path: str, panoptic: dict | None = None) -> list[Fault]:
    """All faults of a COCO-detection JSON.

    Args:
        data: what json.load gave.
        path: of the file, for the faults.
        panoptic: the panoptic JSON beside it, whose images and thing classes it must have.
    """
    faults = Faults(path)
    if not has_lists(data, ("images", "annotations", "categories"), faults):
        return list(faults)
    if any("segments_info" in annotation for annotation in data["annotations"]):
        faults.add("instances", "annotations[].segments_info", "is there: a panoptic JSON, not a detection one")
        return list(faults)
    for table in ("images", "categories"):
        ids = [entry.get("id") for entry in data[table]]
        for value in (v for v in ids if not is_id(v)):
            faults.add("value", f"{table}[].id", f"{short(value)}; allowed: a whole number or a string")
        for value, count in Counter(filter(is_id, ids)).items():
            if count > 1:
                kind = "image-doubled" if table == "images" else "category-doubled"
                faults.add(kind, f"{table}[].id", f"{value!r} occurs {count} times", value if table == "images" else "")
    images = {i["id"]: i for i in data["images"] if is_id(i.get("id"))}
    listed = {c["id"]: c for c in data["categories"] if is_id(c.get("id"))}
    _check_annotations(data["annotations"], images, listed, faults)
    if panoptic is not None:
        _compare(images, listed, panoptic, faults)
    return list(faults)


def _check_annotations(annotations: list[dict], images: dict, listed: dict, faults: Faults) -> None:
    for annotation in annotations:
        image_id = annotation.get("image_id", "")
        for key, (holds, allowed) in KEYS.items():
            value = annotation.get(key, MISSING)
            if value is MISSING:
                faults.add("missing-key", f"annotations[].{key}", _of(annotation, "is missing"), image_id)
            elif not holds(value):
                text = _of(annotation, f"{short(value)}; allowed: {allowed}")
                faults.add("value", f"annotations[].{key}", text, image_id)
        if is_id(image_id) and image_id not in images:
            faults.add("annotation-without-image", "annotations[].image_id", _of(annotation, "no such image"), image_id)
        category = annotation.get("category_id")
        if is_id(category) and category not in listed:
            text = _of(annotation, f"{category!r} is not listed")
            faults.add("category-unlisted", "annotations[].category_id", text, image_id)
        image = images.get(image_id) if is_id(image_id) else None
        if image and is_length(image.get("height")) and is_length(image.get("width")):
            _check_mask(annotation, image, faults)
    ids = Counter(a["id"] for a in annotations if is_id(a.get("id")))
    for value, count in ids.items():
        if count > 1:
            faults.add("instances", "annotations[].id", f"{value!r} occurs {count} times")
    if 0 in ids:
        faults.add("instances", "annotations[].id", "0 means to pycocotools that nothing was matched")


def _of(annotation: dict, text: str) -> str:
    return f"annotation {short(annotation.get('id'))}: {text}"


def _check_mask(annotation: dict, image: dict, faults: Faults) -> None:
    key, image_id, segmentation = "annotations[].segmentation", image["id"], annotation.get("segmentation", MISSING)
    if segmentation is MISSING:
        faults.add("missing-key", key, _of(annotation, "is missing"), image_id)
        return
    height, width = image["height"], image["width"]
    polygons = is_polygons(segmentation)
    if not polygons and not is_rle(segmentation):
        faults.add("value", key, _of(annotation, "neither polygons nor a run-length code"), image_id)
        return
    if not polygons and segmentation["size"] != [height, width]:
        value = f"of {segmentation['size']} px, but the image is {[height, width]} (height, width)"
        faults.add("size", key, _of(annotation, value), image_id)
        return
    if height * width > 2**31:  # pycocotools counts in 32 bits
        return
    rle = to_rle(segmentation, height, width)
    area, given = int(coco_mask.area(rle)), annotation.get("area")
    ratio, slack = (RATIO, SLACK) if polygons else (1, 0)
    if is_number(given) and not area / ratio - slack <= given <= area * ratio + slack:
        faults.add("area", "annotations[].area", _of(annotation, f"{given}, but its mask has {area} px"), image_id)
    box, given = _extent(segmentation) if polygons else coco_mask.toBbox(rle).tolist(), annotation.get("bbox")
    if is_box(given) and max(abs(a - b) for a, b in zip(given, box, strict=True)) > (2 if polygons else 1):
        value = f"{given}, but its mask is in {[round(v, 1) for v in box]}"
        faults.add("box", "annotations[].bbox", _of(annotation, value), image_id)


def is_polygons(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) > 0
        and all(isinstance(p, list) and len(p) >= 6 and len(p) % 2 == 0 and all(map(is_number, p)) for p in value)
        and all(abs(v) < 2**24 for p in value for v in p)
    )


def is_rle(value: object) -> bool:
    """Whether pycocotools can be given it: it does not look at what it reads."""
    if not isinstance(value, dict):
        return False
    size, counts = value.get("size"), value.get("counts")
    if not (isinstance(size, list) and len(size) == 2 and all(map(is_length, size))):
        return False
    if isinstance(counts, list):
        return all(type(c) is int and c >= 0 for c in counts) and sum(counts) == size[0] * size[1]
    # Characters of 6 bits from "0", the highest of which says that a number continues.
    if not (isinstance(counts, str) and all("0" <= c <= "o" for c in counts)):
        return False
    return counts == "" or ord(counts[-1]) - 48 < 32


def to_rle(segmentation: list | dict, height: int, width: int) -> dict:
    """A run-length code that pycocotools takes, of polygons or of another such code."""
    if isinstance(segmentation, list):
        return coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    if isinstance(segmentation["counts"], list):
        return coco_mask.frPyObjects(segmentation, height, width)
    return segmentation


def _extent(polygons: list[list[float]]) -> list[float]:
    x, y = [v for p in polygons for v in p[::2]], [v for p in polygons for v in p[1::2]]
    return [min(x), min(y), max(x) - min(x), max(y) - min(y)]


def _compare(images: dict, listed: dict, panoptic: dict, faults: Faults) -> None:
    theirs = {i["id"]: i for i in panoptic["images"] if is_id(i.get("id"))}
    for image_id in theirs.keys() - images.keys():
        faults.add("instances", "images[].id", "is in the panoptic JSON only", image_id)
    for image_id in images.keys() - theirs.keys():
        faults.add("instances", "images[].id", "is not in the panoptic JSON", image_id)
    for image_id in images.keys() & theirs.keys():
        ours, other = ([i.get("width"), i.get("height")] for i in (images[image_id], theirs[image_id]))
        if ours != other:
            value = f"{ours}, but the panoptic JSON says {other} (width, height)"
            faults.add("instances", "images[].width", value, image_id)
    things = {c["id"]: c.get("name") for c in panoptic["categories"] if is_id(c.get("id")) and c.get("isthing")}
    for category_id in things.keys() | listed.keys():
        name = listed.get(category_id, {}).get("name", MISSING)
        if category_id not in things:
            value = f"{category_id!r} ({name!r}) is no thing class of the panoptic JSON"
        elif category_id not in listed:
            value = f"{category_id!r} ({things[category_id]!r}) is a thing class of the panoptic JSON only"
        elif name is not MISSING and name != things[category_id]:
            value = f"{category_id!r} is {name!r} here and {things[category_id]!r} in the panoptic JSON"
        else:
            continue
        faults.add("instances", "categories[].id", value)
