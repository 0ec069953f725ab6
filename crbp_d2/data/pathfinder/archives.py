"""Reading an archive of Pathfinder stimuli, whatever happened to it: the stimulus, or one sentence with the file.

An archive holds at most PER_FILE stimuli, each as two grey PNGs, the image `000123.png` and the target
`000123_target.png` (255 on the target), uncompressed by the archive itself, so that any is read at once.
"""

import json
import os
import re
import zipfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np

from crbp_d2.utils.files import write_text

from ..images import ImageError, decoding, one_line, read_json
from ..values import is_number, short

PER_FILE = 500
# Side of a stimulus whose record does not tell it.
MOST_PIXELS = 4096
# Of a PNG beside its pixels, of an archive's entry, and of what an archive may have at its end.
BESIDE_PIXELS, BESIDE_PNG, AT_THE_END = 4096, 1024, 2**17


def image_name(number: int) -> str:
    return f"{number:06d}.png"


def target_name(number: int) -> str:
    return f"{number:06d}_target.png"


def read_stimulus(path: str, number: int, size: tuple[int, int] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Image and target (0 or 1) of one stimulus, each uint8, H x W.

    Memory is that of one stimulus, whatever the archive claims to hold.

    Args:
        size: (H, W) that the stimulus must have.

    Raises:
        FileNotFoundError: no such archive.
        ValueError: names an archive that is damaged or not one of ours.
    """
    try:
        archive = _open_archive(path, os.getpid(), _most_bytes(size))
        image, target = (_read(archive, name, size) for name in (image_name(number), target_name(number)))
        if image.shape != target.shape:
            raise ValueError(f"the image is {image.shape}, but its target {target.shape} px")
        if not np.isin(target, (0, 255)).all():
            raise ValueError("its target has other values than 0 and 255")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no file {path}") from error
    except Exception as error:  # zipfile raises whatever the bytes lead it to
        raise ValueError(
            f"{path} is damaged or holds no stimulus {number}: {one_line(error)}; delete it and run the generator again"
        ) from error
    return image, (target > 0).astype(np.uint8)


def _most_bytes(size: tuple[int, int] | None) -> int:
    """Of a PNG of this size, which is no longer than its pixels, a byte a row and what stands around them."""
    height, width = size or (MOST_PIXELS, MOST_PIXELS)
    return height * (width + 1) * 101 // 100 + BESIDE_PIXELS


@lru_cache(maxsize=256)
def _open_archive(path: str, process: int, most_bytes: int) -> zipfile.ZipFile:
    # Opened anew in each process: forked ones would share the position in the file.
    if not os.path.isfile(path) and os.path.exists(path):
        raise ValueError("it is no file")
    # zipfile reads the table of contents as a whole, which may take up all of the file.
    most = 2 * PER_FILE * (most_bytes + BESIDE_PNG) + AT_THE_END
    if os.path.getsize(path) > most:
        raise ValueError(f"its {os.path.getsize(path):,} bytes are more than the {most:,} that it can have")
    return zipfile.ZipFile(path)


def _read(archive: zipfile.ZipFile, name: str, size: tuple[int, int] | None) -> np.ndarray:
    most_bytes, entry = _most_bytes(size), archive.getinfo(name)
    # Other methods decompress as much as there is at once.
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name} is compressed by method {entry.compress_type}")
    if entry.file_size > most_bytes:
        raise ValueError(f"{name} claims {entry.file_size:,} bytes, more than the {most_bytes:,} that it can have")
    with archive.open(entry) as file:
        content = file.read(most_bytes + 1)
    with decoding(name, content) as (image, header):
        largest = size or (MOST_PIXELS, MOST_PIXELS)
        height, width = header.size[::-1]
        if (size and (height, width) != size) or height > largest[0] or width > largest[1]:
            raise ImageError(f"{name} is {width} x {height} px, but its record says {largest[1]} x {largest[0]}")
        if (header.format, header.mode, header.bits) != ("PNG", "L", 8):
            raise ImageError(f"{name} is a {header.format} of {header.bits} bits and mode {header.mode}, no grey PNG")
        return np.array(image)


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
