"""Checks of a COCO-panoptic JSON, without its files. Columns of millions of segments are checked at once."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from ..values import integers, is_box, is_color, is_flag, is_id, is_length, is_number, kind, short, whole_number
from .faults import Fault, Faults

MOST_SEGMENTS = 2**24  # ids are 3 bytes, and 0 is void
VOID = 255  # of a semantic map of bytes
MISSING = object()
SEGMENT = "annotations[].segments_info[]"


def check_panoptic_json(data: Any, path: str) -> list[Fault]:
    """All faults of a COCO-panoptic JSON that it shows by itself.

    Args:
        data: what json.load gave.
        path: of the file, for the faults.
    """
    faults = Faults(path)
    if has_lists(data, ("images", "annotations", "categories"), faults) and not _is_detection(data, faults):
        listed = _check_categories(data["categories"], faults)
        images = _check_images(data["images"], faults)
        segments = _check_annotations(data["annotations"], images, faults)
        _check_segments(*segments, listed, faults)
    return list(faults)


def check_categories(categories: Any, path: str) -> list[Fault]:
    """All faults of the categories of a COCO-panoptic JSON."""
    faults = Faults(path)
    if has_lists({"categories": categories}, ("categories",), faults):
        _check_categories(categories, faults)
    return list(faults)


def has_lists(data: Any, keys: Iterable[str], faults: Faults) -> bool:
    """Whether all of these keys hold lists of objects; adds what is wrong to `faults`."""
    if not isinstance(data, dict):
        faults.add("json", "", f"holds {kind(data)}, not an object with images, annotations and categories")
        return False
    whole = True
    for key in keys:
        entries = data.get(key, MISSING)
        if entries is MISSING:
            faults.add("missing-key", key, "is missing")
        elif not isinstance(entries, list):
            faults.add("value", key, f"is {kind(entries)}, not a list")
        elif unknown := [k for k, entry in enumerate(entries) if not isinstance(entry, dict)]:
            faults.add("value", f"{key}[{unknown[0]}]", f"is {kind(entries[unknown[0]])}, not an object")
        else:
            continue
        whole = False
    return whole


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


def _check_categories(categories: list[dict], faults: Faults) -> set:
    """Returns the ids that are listed."""
    for key, allowed, holds in (
        ("id", "a whole number or a string", is_id),
        ("name", "a string", lambda v: isinstance(v, str) and v.strip() != ""),
        ("isthing", "0 or 1", is_flag),
    ):
        _check_column(categories, "categories[]", key, allowed, holds, faults, lambda c: f"of {c.get('name')!r}")
    for category in categories:
        color = category.get("color", [0, 0, 0])
        if not is_color(color):
            faults.add("value", "categories[].color", f"{color!r} of {category.get('name')!r}: not 3 numbers to 255")
    for key in ("id", "name"):
        values = [c[key] for c in categories if is_id(c.get(key))]
        for _, text in _doubled(values):
            faults.add("category-doubled", f"categories[].{key}", text)
    ids = [c["id"] for c in categories if is_id(c.get("id"))]
    _string_ids(ids, "categories[].id", faults)
    stuff = sum(not c.get("isthing", True) for c in categories)
    if not categories or stuff >= VOID - 1:
        allowed = f"at least one is needed, and fewer than {VOID - 1} of stuff"
        faults.add("value", "categories", f"{len(categories)} categories, {stuff} of stuff; {allowed}")
    return set(ids)


def _check_images(images: list[dict], faults: Faults) -> dict:
    """Returns id -> image."""
    for key, allowed, holds in (
        ("id", "a whole number or a string", is_id),
        ("height", "a whole number from 1", is_length),
        ("width", "a whole number from 1", is_length),
    ):
        _check_column(images, "images[]", key, allowed, holds, faults, lambda i: "", lambda i: i.get("id", ""))
    names = _check_names(images, "images[]", lambda i: i.get("id", ""), faults)
    for image_id, text in _doubled([i["id"] for i in images if is_id(i.get("id"))]):
        faults.add("image-doubled", "images[].id", text, image_id)
    by_name: dict[str, object] = {}
    for image_id, name in names:
        if by_name.setdefault(name, image_id) != image_id:
            faults.add("image-doubled", "images[].file_name", f"{name!r} is that of image {by_name[name]!r}", image_id)
    _check_same_stem(names, "images[].file_name", faults)
    by_id = {i["id"]: i for i in images if is_id(i.get("id"))}
    _string_ids(list(by_id), "images[].id", faults)
    return by_id


def _check_annotations(annotations: list[dict], images: dict, faults: Faults) -> tuple[list, np.ndarray, list]:
    """Returns all segments in one list, the annotation of each, and the annotations' image ids."""
    if not annotations:
        faults.add("value", "annotations", "is empty: there is nothing to train on or to evaluate")
    image_ids = [a.get("image_id", "") for a in annotations]
    _check_column(
        annotations, "annotations[]", "image_id", "a whole number or a string", is_id, faults,
        lambda a: f"(file_name {a.get('file_name')!r})",
    )  # fmt: skip
    names = _check_names(annotations, "annotations[]", lambda a: a.get("image_id", ""), faults)
    counts = Counter(i for i in image_ids if is_id(i))
    for image_id, count in counts.items():
        if count > 1:
            faults.add("annotation-doubled", "annotations[].image_id", f"{count} annotations of one image", image_id)
        if image_id not in images:
            value = f"{image_id!r} is that of no image{_other_type(image_id, images)}"
            faults.add("annotation-without-image", "annotations[].image_id", value, image_id)
    by_name: dict[str, object] = {}
    for image_id, name in names:
        if by_name.setdefault(name, image_id) != image_id:
            value = f"{name!r} is that of image {by_name[name]!r} too"
            faults.add("annotation-doubled", "annotations[].file_name", value, image_id)
    _check_same_stem(names, "annotations[].file_name", faults)
    for image_id in images:
        if image_id not in counts:
            faults.add("image-without-annotation", "images[].id", "no annotation: is left out of training", image_id)
    segments, lengths = [], []
    for annotation, image_id in zip(annotations, image_ids, strict=True):
        of_image = annotation.get("segments_info", MISSING)
        if not isinstance(of_image, list) or not all(isinstance(s, dict) for s in of_image):
            missing = of_image is MISSING
            value = "is missing" if missing else f"is {kind(of_image)}, not a list of objects"
            faults.add("missing-key" if missing else "value", "annotations[].segments_info", value, image_id)
            of_image = []
        segments.append(of_image)
        lengths.append(len(of_image))
    owners = np.repeat(np.arange(len(annotations)), lengths)
    return list(chain.from_iterable(segments)), owners, image_ids


def _check_segments(segments: list[dict], owners: np.ndarray, image_ids: list, listed: set, faults: Faults) -> None:
    def add(kind: str, key: str, k: int, value: str) -> None:
        segment_id = segments[k].get("id")
        value = value if key == "id" else f"segment {segment_id!r}: {value}"
        faults.add(kind, f"{SEGMENT}.{key}", value, image_ids[owners[k]])

    columns = {key: [s.get(key, MISSING) for s in segments] for key in ("id", "category_id", "iscrowd", "area", "bbox")}
    for key, values in columns.items():
        for k in _where(values, lambda v: v is MISSING):
            add("missing-key" if key in ("id", "category_id") else "derived-key", key, k, "is missing")
    ids, whole = integers(columns["id"])
    for k in np.flatnonzero(~whole).tolist():
        if columns["id"][k] is not MISSING:
            add("segment-id", "id", k, f"{columns['id'][k]!r} is no whole number")
    if strings := [v for v in columns["id"] if type(v) is str]:
        _string_ids(strings, f"{SEGMENT}.id", faults)
    for k in np.flatnonzero(whole & ((ids <= 0) | (ids >= MOST_SEGMENTS))).tolist():
        add("segment-id", "id", k, f"{ids[k]}; allowed: 1 to {MOST_SEGMENTS - 1} (0 is void)")
    good = np.flatnonzero(whole & (ids > 0) & (ids < MOST_SEGMENTS))
    codes, first, counts = np.unique(
        owners[good] * MOST_SEGMENTS + ids[good], return_index=True, return_counts=True
    )  # fmt: skip
    for k, count in zip(good[first[counts > 1]].tolist(), counts[counts > 1], strict=True):
        add("segment-doubled", "id", k, f"{ids[k]} is that of {count} segments")
    for k, value in enumerate(columns["category_id"]):
        if value is not MISSING and not (is_id(value) and value in listed):
            add("category-unlisted", "category_id", k, f"{value!r} is not listed{_other_type(value, listed)}")
    for k in _where(columns["iscrowd"], lambda v: v is not MISSING and not is_flag(v)):
        add("value", "iscrowd", k, f"{columns['iscrowd'][k]!r}; allowed: 0 and 1")
    for k in _where(columns["area"], lambda v: v is not MISSING and not (is_number(v) and v > 0)):
        add("area", "area", k, f"{columns['area'][k]!r} is no positive number")
    for k in _where(columns["bbox"], lambda v: v is not MISSING and not is_box(v)):
        add("box", "bbox", k, f"{columns['bbox'][k]!r} are not x, y, width and height")


def _check_column(entries: list[dict], where: str, key: str, allowed: str, holds, faults: Faults, note,
                  image=lambda entry: "") -> None:  # fmt: skip
    for entry in entries:
        value = entry.get(key, MISSING)
        if value is MISSING:
            faults.add("missing-key", f"{where}.{key}", f"is missing {note(entry)}", image(entry))
        elif not holds(value):
            found = f"{short(value)} {note(entry)}".rstrip()
            faults.add("value", f"{where}.{key}", f"{found}; allowed: {allowed}", image(entry))


def _check_names(entries: list[dict], where: str, image, faults: Faults) -> list[tuple[object, str]]:
    """Returns image id and normalized file name of those that have one."""
    names = []
    key = f"{where}.file_name"
    for entry in entries:
        name = entry.get("file_name", MISSING)
        if name is MISSING:
            faults.add("missing-key", key, "is missing", image(entry))
        elif not isinstance(name, str) or not name.strip("/. ") or "\0" in name:
            faults.add("file-name", key, f"{short(name)} is no file name", image(entry))
        elif leaves_root(name):
            faults.add("file-name", key, f"{name!r} leaves its folder", image(entry))
        else:
            names.append((image(entry), str(PurePosixPath(name))))
    return names


def leaves_root(name: str) -> bool:
    """Whether a file name points out of the folder that it is relative to."""
    depth = 0
    for part in name.replace("\\", "/").split("/"):
        depth += {"..": -1, ".": 0, "": 0}.get(part, 1)
        if depth < 0:
            return True
    return name.startswith(("/", "\\")) or name[1:3] in (":/", ":\\")


def _check_same_stem(names: list[tuple[object, str]], key: str, faults: Faults) -> None:
    by_stem: dict[str, str] = {}
    for image_id, name in names:
        first = by_stem.setdefault(PurePosixPath(name).stem, name)
        if first != name:
            value = f"{name!r} and {first!r}: programs that pair files by name mix them up"
            faults.add("same-file-name", key, value, image_id)


def _doubled(values: list) -> Iterator[tuple[object, str]]:
    """Each value that occurs several times, or as a number and as a string, and what is to be said of it."""
    counts = Counter(values)
    for value, count in counts.items():
        if count > 1:
            yield value, f"{value!r} occurs {count} times"
        elif type(value) is str and value.isascii() and (number := whole_number(value)) in counts:
            yield value, f"{value!r} occurs as a string, {number} as a number"


def _string_ids(values: list, key: str, faults: Faults) -> None:
    strings = [v for v in values if type(v) is str]
    if strings:
        value = f"{len(strings):,} of {len(values):,} are strings, for instance {strings[0]!r}"
        faults.add("string-id", key, value)


def _other_type(value: object, listed: Iterable) -> str:
    """A hint where a number was written as a string, or the reverse."""
    if isinstance(value, (str, int, float)):
        for other in listed:
            if type(other) is not type(value) and str(other) == str(value):
                return f", but {other!r} is"
    return ""


def _where(values: list, wrong: Callable[[Any], bool]) -> list[int]:
    return [k for k, value in enumerate(values) if wrong(value)]
