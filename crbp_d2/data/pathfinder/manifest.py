"""The manifest beside the archives of Pathfinder stimuli: what they hold, and which of them are written."""

import json
import re
from collections.abc import Callable
from pathlib import Path

from crbp_d2.files import write_text

from ..opening import read_json
from ..values import is_number, short
from .archives import PER_FILE

MANIFEST = "manifest.json"
MOST_STIMULI = 10**8
# Of a manifest whose archives are gone, and for each archive that is there.
MOST_BYTES, BYTES_OF_AN_ARCHIVE = 2**22, 256


def write_manifest(folder: Path, manifest: dict) -> None:
    """Write what `read_manifest` reads, atomically."""
    ordered = {**manifest, "files": dict(sorted(manifest["files"].items()))}
    write_text(folder / MANIFEST, json.dumps(ordered, indent=1) + "\n")


def read_manifest(folder: Path) -> dict:
    """What `write_manifest` left in `folder`.

    Raises:
        FileNotFoundError: there is none.
        ValueError: names a manifest that cannot be read, or the key of it that has another value than one can have.
    """
    path = folder / MANIFEST
    archives = sum(1 for _ in folder.glob("*.zip"))
    manifest = read_json(str(path), MOST_BYTES + BYTES_OF_AN_ARCHIVE * archives)
    if not isinstance(manifest, dict) or not VALUES.keys() <= manifest.keys():
        raise ValueError(f"{path} is no manifest of Pathfinder stimuli: {', '.join(VALUES)} are needed")
    for key, (holds, allowed) in VALUES.items():
        if not holds(manifest[key]):
            raise ValueError(f"{path} is damaged: {key} is {short(manifest[key])}; allowed: {allowed}")
    for name, entry in manifest["files"].items():
        if not re.fullmatch(r"\d{5,}\.zip", name, re.ASCII) or not _is_entry(entry):
            text = "a file is a number and .zip, with its count and sha256"
            raise ValueError(f"{path} is damaged: files[{short(name)}] is {short(entry)}; {text}")
    return manifest


def _is_whole(least: int, most: int) -> Callable[[object], bool]:
    return lambda value: type(value) is int and least <= value <= most


def _is_entry(entry: object) -> bool:
    return (
        isinstance(entry, dict)
        and _is_whole(1, PER_FILE)(entry.get("count"))
        and isinstance(entry.get("sha256"), str)
        and re.fullmatch("[0-9a-f]{64}", entry["sha256"]) is not None
    )


VALUES: dict[str, tuple[Callable[[object], bool], str]] = {
    "generator": (_is_whole(0, 2**31), "a whole number"),
    "seed": (
        lambda v: isinstance(v, list) and 1 <= len(v) <= 8 and all(map(_is_whole(0, 2**64), v)),
        "whole numbers from 0",
    ),
    "spec": (lambda v: isinstance(v, dict) and all(map(is_number, v.values())), "numbers by their names"),
    "count": (_is_whole(1, MOST_STIMULI), f"1 to {MOST_STIMULI:,}"),
    "files": (lambda v: isinstance(v, dict), "archives by their names"),
}
