"""Rules for the values of a JSON: one table of columns for each kind of entry, file names, ids and duplicates."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, TypeGuard

import numpy as np

from .panoptic.faults import Faults

MISSING = object()


def whole_number(value: object) -> int | None:
    """The integer of a value, or of its decimal digits; None for any other value."""
    if type(value) is str and value.isascii() and value.isdigit() and len(value) < 18:
        return int(value)
    return value if type(value) is int and abs(value) < 2**62 else None


def integers(values: list) -> tuple[np.ndarray, np.ndarray]:
    """`whole_number` of each value as int64, 0 for None, and a mask of the values that have one."""
    if set(map(type, values)) <= {int}:
        try:
            return np.array(values, np.int64), np.ones(len(values), bool)
        except OverflowError:
            pass
    whole = [whole_number(v) for v in values]
    return np.array([v or 0 for v in whole], np.int64), np.array([v is not None for v in whole], bool)


def is_id(value: object) -> bool:
    return type(value) is int or (type(value) is str and value != "")


def is_flag(value: object) -> bool:
    return type(value) in (int, bool) and value in (0, 1)


def is_length(value: object) -> bool:
    return type(value) is int and value >= 1


def is_number(value: Any) -> bool:
    return abs(value) < 2**62 if type(value) is int else type(value) is float and math.isfinite(value)


def is_color(value: object) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(is_number(v) and 0 <= v <= 255 for v in value)


def is_box(value: object, empty: bool = False) -> bool:
    """Test for x, y, width and height; `empty` also allows an area of 0."""
    if not (isinstance(value, list) and len(value) == 4 and all(map(is_number, value))):
        return False
    return min(value[2:]) > 0 or (empty and min(value[2:]) == 0)


def is_table(value: object) -> TypeGuard[list[dict]]:
    return isinstance(value, list) and all(isinstance(entry, dict) for entry in value)


def is_inside(name: object) -> bool:
    """Test for a file name that stays in the folder it is relative to."""
    if not isinstance(name, str) or not name or "\0" in name:
        return False
    depth = 0
    for part in name.replace("\\", "/").split("/"):
        depth += {"..": -1, ".": 0, "": 0}.get(part, 1)
        if depth < 0:
            return False
    return not (name.startswith(("/", "\\")) or name[1:3] in (":/", ":\\"))


def type_name(value: object) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"


def short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


@dataclass(frozen=True)
class Column:
    """The rule for one key of a table's entries.

    holds: predicate of a valid value.
    allowed: str, description of valid values.
    kind: str, kind of fault of an invalid value.
    absent: str, kind of fault of an entry without the key; "" for an optional key.
    """

    key: str
    holds: Callable[[Any], bool]
    allowed: str
    kind: str = "value"
    absent: str = "missing-key"


ID = "a whole number or a string"
FLAG = "0 or 1"
IMAGE = (
    Column("id", is_id, ID),
    Column("height", is_length, "a whole number from 1"),
    Column("width", is_length, "a whole number from 1"),
)
# Names that are empty or blank cannot be told apart in tables and pictures.
CATEGORY = (Column("id", is_id, ID), Column("name", lambda v: isinstance(v, str) and v.strip() != "", "a string"))
PANOPTIC_CATEGORY = (
    *CATEGORY,
    Column("isthing", is_flag, FLAG),
    Column("color", is_color, "3 numbers from 0 to 255", absent=""),
)
PANOPTIC_ANNOTATION = (Column("image_id", is_id, ID),)
SEGMENT = (
    Column("id", lambda v: whole_number(v) is not None, "a whole number", "segment-id"),
    Column("iscrowd", is_flag, FLAG, absent="derived-key"),
    Column("area", lambda v: is_number(v) and v > 0, "a positive number", "area", "derived-key"),
    Column("bbox", is_box, "x, y, width and height", "box", "derived-key"),
)
INSTANCE = (
    Column("id", is_id, ID, absent="derived-key"),
    Column("image_id", is_id, ID),
    Column("category_id", is_id, ID),
    Column("iscrowd", is_flag, FLAG, absent="derived-key"),
    Column("area", lambda v: is_number(v) and v >= 0, "a number from 0", absent="derived-key"),
    Column("bbox", lambda v: is_box(v, empty=True), "x, y, width and height"),
)


def check_columns(
    entries: Sequence[dict],
    where: str,
    columns: Iterable[Column],
    faults: Faults,
    image_of: Callable[[int], object] = lambda k: "",
    label: Callable[[dict], str] = lambda entry: "",
) -> None:
    """Add the faults of all entries to `faults`.

    Args:
        where: str, place of an entry, for instance "images[]".
        image_of: position of an entry -> image id.
        label: entry -> text that identifies it.
    """
    for column in columns:
        key, holds = column.key, column.holds
        values = [entry.get(key, MISSING) for entry in entries]
        for k in [k for k, value in enumerate(values) if value is MISSING or not holds(value)]:
            text, kind = f"{short(values[k])}; allowed: {column.allowed}", column.kind
            if values[k] is MISSING:
                text, kind = "is missing", column.absent
            if kind:
                faults.add(kind, f"{where}.{key}", f"{label(entries[k])}{text}", image_of(k))


def has_lists(data: Any, keys: Iterable[str], faults: Faults) -> bool:
    """True if `data` is an object whose `keys` are lists of objects; adds faults otherwise."""
    if not isinstance(data, dict):
        faults.add("json", "", f"holds {type_name(data)}, not an object with images, annotations and categories")
        return False
    for key in keys:
        entries = data.get(key, MISSING)
        if entries is MISSING:
            faults.add("missing-key", key, "is missing")
        elif not isinstance(entries, list):
            faults.add("value", key, f"is {type_name(entries)}, not a list")
        elif unknown := [k for k, entry in enumerate(entries) if not isinstance(entry, dict)]:
            faults.add("value", f"{key}[{unknown[0]}]", f"is {type_name(entries[unknown[0]])}, not an object")
    return all(is_table(data.get(key)) for key in keys)


def check_images(images: list[dict], faults: Faults, relative: bool = True) -> dict:
    """Add the faults of a table of images; returns id -> image.

    Args:
        relative: whether file names must stay in the folder of the images.
    """
    check_columns(images, "images[]", IMAGE, faults, lambda k: images[k].get("id", ""))
    names = check_names(images, "images[]", "id", faults, relative)
    by_id = {image["id"]: image for image in images if is_id(image.get("id"))}
    for image_id, text in duplicates([i["id"] for i in images if is_id(i.get("id"))]):
        faults.add("duplicate-image", "images[].id", text, image_id)
    check_one_owner(names, "images[].file_name", "duplicate-image", faults)
    check_string_ids(list(by_id), "images[].id", faults)
    return by_id


def check_category_table(categories: list[dict], columns: Iterable[Column], faults: Faults) -> dict:
    """Add the faults of a table of categories; returns id -> category."""
    check_columns(categories, "categories[]", columns, faults, label=lambda c: f"of {c.get('name')!r}: ")
    for key in ("id", "name"):
        for _, text in duplicates([c[key] for c in categories if is_id(c.get(key))]):
            faults.add("duplicate-category", f"categories[].{key}", text)
    by_id = {category["id"]: category for category in categories if is_id(category.get("id"))}
    check_string_ids(list(by_id), "categories[].id", faults)
    return by_id


def check_names(
    entries: list[dict], where: str, image_key: str, faults: Faults, relative: bool = True
) -> list[tuple[object, str]]:
    """Add the faults of `file_name`; returns image id and normalized file name of the valid ones."""
    names, key = [], f"{where}.file_name"
    for entry in entries:
        name, image_id = entry.get("file_name", MISSING), entry.get(image_key, "")
        if name is MISSING:
            faults.add("missing-key", key, "is missing", image_id)
        elif not isinstance(name, str) or not name.strip("/. ") or "\0" in name:
            faults.add("file-name", key, f"{short(name)} is not a file name", image_id)
        elif relative and not is_inside(name):
            faults.add("file-name", key, f"{name!r} leaves its folder", image_id)
        else:
            names.append((image_id, str(PurePosixPath(name))))
    return names


def check_one_owner(names: list[tuple[object, str]], key: str, kind: str, faults: Faults) -> None:
    """Add file names of several images, and names that differ in folder or ending only."""
    by_name: dict[str, object] = {}
    by_stem: dict[str, str] = {}
    for image_id, name in names:
        if by_name.setdefault(name, image_id) != image_id:
            faults.add(kind, key, f"{name!r} is also the file of image {by_name[name]!r}", image_id)
        first = by_stem.setdefault(PurePosixPath(name).stem, name)
        if first != name:
            value = f"{name!r} and {first!r}: programs that pair files by name confuse them"
            faults.add("same-file-name", key, value, image_id)


def duplicates(values: list) -> Iterator[tuple[object, str]]:
    """Each value that occurs several times, or as a number and as a string, and a description."""
    counts = Counter(values)
    for value, count in counts.items():
        if count > 1:
            yield value, f"{value!r} occurs {count} times"
        elif type(value) is str and value.isascii() and (number := whole_number(value)) in counts:
            yield value, f"{value!r} occurs as a string, {number} as a number"


def check_string_ids(values: list, key: str, faults: Faults) -> None:
    if strings := [v for v in values if type(v) is str]:
        value = f"{len(strings):,} of {len(values):,} are strings, for instance {strings[0]!r}"
        faults.add("string-id", key, value)


def other_type(value: object, listed: Iterable) -> str:
    """A hint for a number that was written as a string, or the reverse."""
    if isinstance(value, (str, int, float)):
        for other in listed:
            if type(other) is not type(value) and str(other) == str(value):
                return f", but {other!r} is"
    return ""
