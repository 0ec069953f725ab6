"""Checks of the numbers that layers and cells are made with."""

from numbers import Integral


def check_whole(owner: str, least: int = 1, **settings: object) -> None:
    """Check that settings are whole numbers.

    Raises:
        ValueError: one that is not, or below `least`; names the owner, the setting and its value.
    """
    for name, value in settings.items():
        if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
            raise ValueError(f"{owner}: {name} must be a whole number of at least {least}, got {value!r}")
