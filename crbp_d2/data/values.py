"""What a value of a JSON is, whatever was written there."""

import math
from typing import Any

import numpy as np


def integers(values: list) -> tuple[np.ndarray, np.ndarray]:
    """The values as int64, digits as the number that they are, and whether each is a whole number."""
    if set(map(type, values)) <= {int}:
        try:
            return np.array(values, np.int64), np.ones(len(values), bool)
        except OverflowError:
            pass
    whole = [whole_number(v) for v in values]
    return np.array([v or 0 for v in whole], np.int64), np.array([v is not None for v in whole], bool)


def whole_number(value: object) -> int | None:
    """A segment's id as a number, also where it is written as a string; None for anything else."""
    if type(value) is str and value.isascii() and value.isdigit() and len(value) < 18:
        return int(value)
    return value if type(value) is int and abs(value) < 2**62 else None


def is_id(value: object) -> bool:
    return type(value) is int or (type(value) is str and value != "")


def is_flag(value: object) -> bool:
    return type(value) in (int, bool) and value in (0, 1)


def is_length(value: object) -> bool:
    return type(value) is int and value >= 1


def is_number(value: Any) -> bool:
    return abs(value) < 2**62 if type(value) is int else type(value) is float and math.isfinite(value)


def is_byte(value: Any) -> bool:
    return is_number(value) and 0 <= value <= 255


def is_color(value: object) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(map(is_byte, value))


def is_box(value: object) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(is_number, value)) and min(value[2:]) > 0


def kind(value: object) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"


def short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
