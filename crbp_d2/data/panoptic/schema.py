"""Checks of a COCO-panoptic JSON, without its files. Columns of millions of segments are checked at once."""

from collections import Counter
from itertools import chain
from typing import Any

import numpy as np

from ..schema import (
    MISSING,
    PANOPTIC_ANNOTATION,
    PANOPTIC_CATEGORY,
    SEGMENT,
    Column,
    check_category_table,
    check_columns,
    check_images,
    check_names,
    check_one_owner,
    check_string_ids,
    has_lists,
    integers,
    is_id,
    is_table,
    other_type,
    type_name,
)
from .faults import Faults
from .png import MOST_SEGMENTS

VOID = 255  # in a semantic map of bytes
SEGMENTS = "annotations[].segments_info[]"


def check_panoptic_json(data: Any, path: str) -> Faults:
    """All faults of a COCO-panoptic JSON that are visible without its files.

    Args:
        data: the content of the JSON.
        path: str, its file, for the faults.
    """
    faults = Faults(path)
    if has_lists(data, ("images", "annotations", "categories"), faults) and not _is_detection(data, faults):
        listed = _check_categories(data["categories"], faults)
        images = check_images(data["images"], faults)
        _check_annotations(data["annotations"], images, faults)
        _check_segments(data["annotations"], listed, faults)
    return faults


def check_categories(categories: Any, path: str) -> Faults:
    """All faults of the categories of a COCO-panoptic JSON."""
    faults = Faults(path)
    if has_lists({"categories": categories}, ("categories",), faults):
        _check_categories(categories, faults)
    return faults


def _is_detection(data: dict, faults: Faults) -> bool:
    annotations = data["annotations"]
    if not annotations or any("segments_info" in a for a in annotations):
        return False
    if not any("segmentation" in a or "category_id" in a for a in annotations):
        return False
    faults.add(
        "detection-json",
        "annotations[].segments_info",
        "is missing from all, and there are segmentation or category_id: a detection JSON, not a panoptic one",
    )
    return True


def _check_categories(categories: list[dict], faults: Faults) -> dict:
    listed = check_category_table(categories, PANOPTIC_CATEGORY, faults)
    stuff = sum(not c.get("isthing", True) for c in categories)
    if not categories or stuff >= VOID - 1:
        allowed = f"at least one is needed, and fewer than {VOID - 1} of stuff"
        faults.add("value", "categories", f"{len(categories)} categories, {stuff} of stuff; {allowed}")
    return listed


def _check_annotations(annotations: list[dict], images: dict, faults: Faults) -> None:
    if not annotations:
        faults.add("value", "annotations", "is empty: there is nothing to train on or to evaluate")
    check_columns(
        annotations,
        "annotations[]",
        PANOPTIC_ANNOTATION,
        faults,
        label=lambda a: f"(file_name {a.get('file_name')!r}) ",
    )
    names = check_names(annotations, "annotations[]", "image_id", faults)
    counts = Counter(a["image_id"] for a in annotations if is_id(a.get("image_id")))
    for image_id, count in counts.items():
        if count > 1:
            faults.add("duplicate-annotation", "annotations[].image_id", f"{count} annotations of one image", image_id)
        if image_id not in images:
            value = f"there is no image with id {image_id!r}{other_type(image_id, images)}"
            faults.add("annotation-without-image", "annotations[].image_id", value, image_id)
    check_one_owner(names, "annotations[].file_name", "duplicate-annotation", faults)
    for image_id in images:
        if image_id not in counts:
            faults.add("image-without-annotation", "images[].id", "not annotated; skipped in training", image_id)


def _check_segments(annotations: list[dict], listed: dict, faults: Faults) -> None:
    tables = []
    for annotation in annotations:
        table = annotation.get("segments_info", MISSING)
        if not is_table(table):
            kind, value = "value", f"is {type_name(table)}, not a list of objects"
            if table is MISSING:
                kind, value = "missing-key", "is missing"
            faults.add(kind, "annotations[].segments_info", value, annotation.get("image_id", ""))
            table = []
        tables.append(table)
    segments = list(chain.from_iterable(tables))
    owners = np.repeat(np.arange(len(tables)), list(map(len, tables)))

    def image_of(k: int) -> object:
        return annotations[owners[k]].get("image_id", "")

    def is_listed(value: object) -> bool:
        return is_id(value) and value in listed

    category = Column("category_id", is_listed, "the id of a category", "category-unlisted")
    check_columns(
        segments, SEGMENTS, (*SEGMENT, category), faults, image_of, lambda s: f"segment {s.get('id')!r}: "
    )  # fmt: skip
    values = [s.get("id", MISSING) for s in segments]
    ids, whole = integers(values)
    check_string_ids([v for v in values if type(v) is str], f"{SEGMENTS}.id", faults)
    inside = (ids > 0) & (ids < MOST_SEGMENTS)
    for k in np.flatnonzero(whole & ~inside).tolist():
        faults.add(
            "segment-id", f"{SEGMENTS}.id", f"{ids[k]}; allowed: 1 to {MOST_SEGMENTS - 1} (0 is void)", image_of(k)
        )
    good = np.flatnonzero(whole & inside)
    _, first, counts = np.unique(owners[good] * MOST_SEGMENTS + ids[good], return_index=True, return_counts=True)
    for k, count in zip(good[first[counts > 1]].tolist(), counts[counts > 1], strict=True):
        faults.add("duplicate-segment", f"{SEGMENTS}.id", f"{ids[k]} is the id of {count} segments", image_of(k))
