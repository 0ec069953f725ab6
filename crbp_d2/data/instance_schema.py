"""Checks of a COCO-detection JSON, also against a panoptic one. All annotations are checked at once."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from .masks import measure_masks
from .panoptic.faults import Faults
from .schema import (
    CATEGORY,
    INSTANCE,
    MISSING,
    check_category_table,
    check_columns,
    check_images,
    has_lists,
    is_box,
    is_flag,
    is_id,
    is_length,
    is_number,
    short,
)

# The area of polygons is that of their outlines, not of the pixels they are drawn with.
RATIO, SLACK = 2.0, 64
# Tolerated pixels between box and mask, or beyond the image; larger differences are inaccuracies up to this fraction of
# a side of the mask or image, and errors from there on.
NEAR, FAR, BEYOND = 2, 0.5, 0.1


def _label(annotation: dict) -> str:
    return f"annotation {short(annotation.get('id'))}: "


def check_instances_json(data: Any, path: str, panoptic: dict | None = None) -> Faults:
    """All faults of a COCO-detection JSON that are visible without its files.

    Args:
        data: the content of the JSON.
        path: str, its file, for the faults.
        panoptic: dict, content of the panoptic JSON of the same data set, whose images and thing classes it must have.
    """
    faults = Faults(path)
    if not has_lists(data, ("images", "annotations", "categories"), faults):
        return faults
    annotations = data["annotations"]
    if any("segments_info" in annotation for annotation in annotations):
        faults.add("instances", "annotations[].segments_info", "is there: a panoptic JSON, not a detection one")
        return faults
    images = check_images(data["images"], faults, relative=False)
    listed = check_category_table(data["categories"], CATEGORY, faults)
    if not listed:
        faults.add("value", "categories", "is empty: at least one is needed")
    _check_annotations(annotations, images, listed, faults)
    _check_geometry(annotations, images, faults)
    if panoptic is not None:
        _compare(images, listed, panoptic, faults)
    return faults


def _check_annotations(annotations: list[dict], images: dict, listed: dict, faults: Faults) -> None:
    def image_of(k: int) -> object:
        return annotations[k].get("image_id", "")

    check_columns(annotations, "annotations[]", INSTANCE, faults, image_of, _label)
    for k, annotation in enumerate(annotations):
        image_id, category = annotation.get("image_id"), annotation.get("category_id")
        if is_id(image_id) and image_id not in images:
            text = f"{_label(annotation)}there is no image with id {image_id!r}"
            faults.add("annotation-without-image", "annotations[].image_id", text, image_id)
        if is_id(category) and category not in listed:
            text = f"{_label(annotation)}{category!r} is not the id of a category"
            faults.add("category-unlisted", "annotations[].category_id", text, image_of(k))
    ids = Counter(a["id"] for a in annotations if is_id(a.get("id")))
    for value, count in ids.items():
        if count > 1 and "minival" not in faults.file:  # COCO's own minival files of 2014 have some
            faults.add("duplicate-annotation", "annotations[].id", f"{value!r} occurs {count} times")
    if 0 in ids:
        faults.add("derived-key", "annotations[].id", "0 means no match to pycocotools; annotations are renumbered")
    if not annotations:
        faults.add("value", "annotations", "is empty: there is nothing to train on or to evaluate")
    elif all(is_flag(a.get("iscrowd", 0)) and a.get("iscrowd", 0) for a in annotations):
        value = f"is 1 in all {len(annotations):,}: there is nothing to train on or to evaluate"
        faults.add("value", "annotations[].iscrowd", value)


def _check_geometry(annotations: list[dict], images: dict, faults: Faults) -> None:
    """Compare masks, boxes, areas and the sizes of the images."""
    placed = [(a, images.get(a["image_id"])) for a in annotations if is_id(a.get("image_id"))]
    placed = [(a, i) for a, i in placed if i and is_length(i.get("width")) and is_length(i.get("height"))]
    if not placed:
        return
    annotations = [a for a, _ in placed]

    def add(where: np.ndarray, kind: str, key: str, text: Callable[[int], str]) -> None:
        for k in np.flatnonzero(where).tolist():
            annotation = annotations[k]
            faults.add(kind, key, f"{_label(annotation)}{text(k)}", annotation["image_id"])

    limits = np.array([[i["width"], i["height"]] for _, i in placed], np.float64)
    segmentations = [a.get("segmentation", MISSING) for a in annotations]
    areas, extents, sizes = measure_masks(segmentations)
    absent = np.array([s is MISSING or s is None or s == [] for s in segmentations])
    known = ~np.isnan(areas[:, 0])
    coded = sizes[:, 0] > 0
    key = "annotations[].segmentation"
    add(absent, "no-mask", key, lambda k: "is missing or empty: it has a box only")
    allowed = "polygons of at least 3 points, or run lengths that sum to height x width"
    add(~absent & ~known, "value", key, lambda k: f"{short(segmentations[k])}; allowed: {allowed}")
    resized = known & coded & (sizes[:, ::-1] != limits).any(axis=1)
    add(resized, "size", key, lambda k: (
        f"run lengths of {sizes[k].tolist()}, but the image is {_text(limits[k, ::-1])} (height, width)"))  # fmt: skip
    known &= ~resized
    extents[~known] = np.nan
    _check_boxes(annotations, limits, extents, add)

    area = np.array([a["area"] if is_number(a.get("area")) else np.nan for a in annotations], np.float64)
    ratio, slack = np.where(coded, 1, RATIO), np.where(coded, 0, SLACK)
    differs = known & ((area < areas[:, 0] / ratio - slack) | (area > areas[:, 1] * ratio + slack))
    add(differs, "area", "annotations[].area", lambda k: f"{area[k]:g}, but its mask has {areas[k, 1]:g} px")


def _check_boxes(annotations: list[dict], limits: np.ndarray, masks: np.ndarray, add: Callable) -> None:
    """Compare boxes with masks (n x 4 corners, NaN without one) and images (n x 2: width, height)."""
    boxes = np.array(
        [a["bbox"] if is_box(a.get("bbox"), empty=True) else [np.nan] * 4 for a in annotations], np.float64
    )
    given = np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]])
    boxed, both = ~np.isnan(given[:, 0]), ~np.isnan(given[:, 0] + masks[:, 0])
    reached = np.where(np.isnan(masks), given, masks)
    beyond = np.maximum(reached[:, 2:] - limits, -reached[:, :2]).max(axis=1)
    off = np.abs(given - masks).max(axis=1)
    corners = both & (off > NEAR) & (np.abs(boxes - masks).max(axis=1) <= NEAR)
    if boxed.any() and not both.any() and (beyond[boxed] > NEAR).any():
        # Without masks: every box can be read as two corners, and some only so.
        corners = boxed & ((boxes[:, 2:] > boxes[:, :2]) & (boxes[:, 2:] <= limits + NEAR))[boxed].all()
    far = both & (off > NEAR + FAR * (masks[:, 2:] - masks[:, :2]).max(axis=1)) & ~corners
    exchanged = (reached[:, 2:] > limits * (1 + BEYOND) + NEAR).any(axis=1) & ~corners
    exchanged &= (reached[:, 2:] <= limits[:, ::-1] + NEAR).all(axis=1)
    outside = ((reached[:, :2] >= limits) | (reached[:, 2:] <= 0)).any(axis=1) & ~exchanged & ~corners
    clipped = (beyond > NEAR) & ~corners & ~exchanged & ~outside
    inexact = both & (off > NEAR) & ~corners & ~far
    empty = boxed & (boxes[:, 2:] == 0).any(axis=1)

    def in_mask(k: int) -> str:
        return f"{_text(boxes[k])}, but its mask is in {_text(_sides(masks[k]))}"

    def of_image(k: int) -> str:
        return f"the image of {_text(limits[k])} (width, height)"

    def sizes(k: int) -> str:
        return f"{_text(limits[k])} (width, height), but it reaches {_text(reached[k, 2:])}: are they exchanged?"

    key = "annotations[].bbox"
    add(corners, "value", key, lambda k: f"{_text(boxes[k])} are two corners; allowed: x, y, width and height")
    add(far, "value", key, in_mask)
    add(exchanged, "size", "images[].width", sizes)
    add(outside, "value", key, lambda k: f"{_text(_sides(reached[k]))} is outside {of_image(k)}")
    add(inexact, "box", key, in_mask)
    add(clipped, "box", key, lambda k: f"{_text(_sides(reached[k]))} leaves {of_image(k)} and is clipped")
    add(empty, "box", key, lambda k: f"{_text(boxes[k])} is empty; skipped in training")


def _sides(corners: np.ndarray) -> np.ndarray:
    return np.concatenate([corners[:2], corners[2:] - corners[:2]])


def _text(values: np.ndarray) -> str:
    return str([round(v, 1) if v % 1 else int(v) for v in values.tolist()])


def complete_instances(data: dict) -> dict:
    """Give a valid JSON the keys that can be derived: `iscrowd`, `area`, unique annotation ids from 1, `info`."""
    annotations = data["annotations"]
    incomplete = [a for a in annotations if "area" not in a]
    areas = measure_masks([a.get("segmentation") for a in incomplete])[0][:, 1].tolist() if incomplete else []
    for annotation, area in zip(incomplete, areas, strict=True):
        annotation["area"] = area if area == area else annotation["bbox"][2] * annotation["bbox"][3]
    for number, annotation in enumerate(annotations, start=1):
        annotation.update(id=number, iscrowd=int(annotation.get("iscrowd", 0)))
    data.setdefault("info", {})
    return data


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
            value = f"{category_id!r} ({name!r}) is not a thing class of the panoptic JSON"
        elif category_id not in listed:
            value = f"{category_id!r} ({things[category_id]!r}) is a thing class of the panoptic JSON only"
        elif name is not MISSING and name != things[category_id]:
            value = f"{category_id!r} is {name!r} here and {things[category_id]!r} in the panoptic JSON"
        else:
            continue
        faults.add("instances", "categories[].id", value)
