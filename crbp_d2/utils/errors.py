"""Invalid settings: the error that every constructor raises, and the checks that raise it."""

import difflib
import math
import sys
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any, NoReturn


class SettingError(ValueError):
    """A setting with a value that is not allowed.

    Args:
        name: name of the setting, as the constructor spells it.
        value: the given value.
        allowed: allowed values in words, or all choices.
        owner: class of the setting, "" where the name is unique.
    """

    def __init__(self, name: str, value: object, allowed: str | Iterable[str], owner: str = ""):
        self.name = name
        self.value = value
        self.allowed = allowed if isinstance(allowed, str) else tuple(allowed)
        self.owner = owner
        super().__init__(name, value, self.allowed, owner)

    def __str__(self) -> str:
        if isinstance(self.allowed, str):
            return f"{self.who}{self.name} is {self.value!r}; allowed: {self.allowed}"
        choices = ", ".join(choice or "''" for choice in self.allowed)
        return f"{self.who}{self.name} is {self.value!r}; allowed: {choices}{did_you_mean(self.value, self.allowed)}"

    @property
    def who(self) -> str:
        return f"{self.owner}: " if self.owner else ""

    def renamed(self, rename: Callable[[str, str], str], owner: str) -> "SettingError":
        """The same error in the words of another owner.

        Args:
            rename: from owner and name to the name there.
        """
        return SettingError(rename(self.owner, self.name), self.value, self.allowed, owner)


class ContradictionError(SettingError):
    """Settings that are allowed each by itself, but not together.

    Args:
        settings: their values by their names; `name` and `value` are those of the first.
        reason: why they contradict each other, and what to do.
        owner: see SettingError.
    """

    def __init__(self, settings: Mapping[str, object], reason: str, owner: str = ""):
        self.settings = dict(settings)
        self.reason = reason
        name, value = next(iter(self.settings.items()))
        super().__init__(name, value, reason, owner)
        self.args = (self.settings, reason, owner)

    def __str__(self) -> str:
        first, *others = (f"{name} is {value!r}" for name, value in self.settings.items())
        together = f", but {' and '.join(others)}" if others else ""
        return f"{self.who}{first}{together}: {self.reason}"

    def renamed(self, rename: Callable[[str, str], str], owner: str) -> "ContradictionError":
        """See SettingError."""
        settings = {rename(self.owner, name): value for name, value in self.settings.items()}
        return ContradictionError(settings, self.reason, owner)


def check_whole(owner: str, minimum: int = 1, **settings: object) -> None:
    """Check that settings are whole numbers of at least `minimum`.

    Raises:
        SettingError: one that is not, be it a fraction, a bool or a string.
    """
    for name, value in settings.items():
        if isinstance(value, bool) or not isinstance(value, Integral) or value < minimum:
            raise SettingError(name, value, f"whole numbers from {minimum}", owner)


def check_odd(owner: str, minimum: int = 1, **settings: object) -> None:
    """Check that settings are odd numbers of at least `minimum`.

    Raises:
        SettingError: one that is not.
    """
    for name, value in settings.items():
        if isinstance(value, bool) or not isinstance(value, Integral) or value < minimum or value % 2 == 0:
            raise SettingError(name, value, f"odd numbers from {minimum}", owner)


def check_number(owner: str, interval: str, **settings: Any) -> None:
    """Check that settings are finite numbers in an interval.

    Args:
        interval: for instance "(0, 1]" or "[0, inf)".

    Raises:
        SettingError: one that is not; NaN, bools and strings are in no interval.
    """
    low, high = (float(end) for end in interval[1:-1].split(","))
    for name, value in settings.items():
        # NaN is in no interval.
        number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
        above = low <= number if interval[0] == "[" else low < number
        below = number <= high if interval[-1] == "]" else number < high
        if not (above and below):
            raise SettingError(name, value, f"numbers in {interval}", owner)


def check_choice(owner: str, choices: Iterable[str], **settings: object) -> None:
    """Check that settings are among some names.

    Raises:
        SettingError: one that is not, with the nearest names.
    """
    known = tuple(choices)
    for name, value in settings.items():
        if not isinstance(value, str) or value not in known:
            raise SettingError(name, value, known, owner)


def did_you_mean(given: object, known: Iterable[str]) -> str:
    """ ", did you mean 'crbp'?" for the known names nearest to what was given, "" where none is near."""
    names = {name.lower(): name for name in known if name}
    near = difflib.get_close_matches(str(given).lower(), names, n=2, cutoff=0.7)
    return f", did you mean {' or '.join(repr(names[name]) for name in near)}?" if near else ""


def full_keys(section: Mapping, prefix: str = "") -> Iterable[str]:
    """Every key of nested sections, and the sections, by their full names."""
    for key, value in section.items():
        yield f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from full_keys(value, f"{prefix}{key}.")


def exit_with(error: Exception, place: str = "") -> NoReturn:
    """End the program with one line: its name, `place` and the error's message."""
    text = error.args[0] if isinstance(error, KeyError) else error
    sys.exit(f"{Path(sys.argv[0]).name}{place}: {' '.join(str(text).split())}")
