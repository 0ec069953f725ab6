"""What a misspelt name may have meant."""

import difflib
from collections.abc import Iterable, Mapping


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
