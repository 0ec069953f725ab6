"""Pathfinder stimuli on disk: zip archives of PNGs and a manifest, one folder a split.

An archive holds at most PER_FILE stimuli, each as two grey PNGs, the image `000123.png` and the target
`000123_target.png` (255 on the target), stored without compression, so that any is read directly.
"""

import hashlib
import json
import logging
import os
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, BinaryIO, cast

import cv2
import numpy as np
from torch.utils.data import DataLoader, Dataset

from crbp_d2.utils.files import write_atomically, write_text

from ..images import ImageError, check_header, decoding, one_line, read_json
from ..schema import short
from .spec import PathfinderSpec
from .stimuli import GENERATOR, check_fits, generate_pathfinder

PER_FILE = 500
MANIFEST = "manifest.json"
# Rule for each value of a manifest.
RULES: dict[str, Callable[[Any], bool]] = {
    "generator": lambda value: type(value) is int,
    "seed": lambda value: isinstance(value, list) and all(type(part) is int and part >= 0 for part in value),
    "spec": lambda value: isinstance(value, dict),
    "count": lambda value: type(value) is int and 0 < value < 10**9,
    "files": lambda value: isinstance(value, dict) and all(isinstance(entry, dict) for entry in value.values()),
}


@dataclass(frozen=True)
class Split:
    """The content of one folder.

    spec: PathfinderSpec.
    seed: tuple of int, see generate_pathfinder.
    count: int, number of stimuli.
    """

    spec: PathfinderSpec
    seed: tuple[int, ...]
    count: int

    def files(self) -> dict[str, range]:
        """Name of each archive -> numbers of its stimuli."""
        numbers = range(self.count)
        return {
            f"{k:05d}.zip": numbers[first : first + PER_FILE] for k, first in enumerate(numbers[::PER_FILE])
        }  # fmt: skip


def write_split(
    folder: Path, split: Split, workers: int = 1, progress: Callable[..., Iterable] = lambda archives, total: archives
) -> None:
    """Complete `folder`: keep its intact archives, draw the others.

    The bytes depend neither on `workers` nor on kills in between. A kill loses the archives being written.

    Args:
        workers: int, processes that draw.
        progress: progress(archives, total=number) -> archives, such as tqdm.

    Raises:
        ValueError: the folder holds stimuli of another spec, seed or generator, or more stimuli; a spec that does not
            fit its window.
        OSError: for instance a full disk; names the file.
    """
    check_fits(split.spec)
    manifest = _manifest_to_continue(folder, split)
    folder.mkdir(parents=True, exist_ok=True)
    for left_over in folder.glob("*.partial"):
        left_over.unlink()
    files = split.files()
    found = manifest["files"]
    manifest["files"] = {name: found[name] for name in files if _is_intact(folder / name, found, len(files[name]))}
    _write_manifest(folder, manifest)
    missing = [name for name in files if name not in manifest["files"]]
    loader = DataLoader(
        cast(Dataset, missing),
        batch_size=None,
        num_workers=workers if workers > 1 else 0,
        collate_fn=partial(_write_archive, folder, split),
    )
    for name, entry in progress(loader, total=len(missing)):
        if isinstance(entry, OSError):
            raise entry
        manifest["files"][name] = entry
        _write_manifest(folder, manifest)


def _write_archive(folder: Path, split: Split, name: str) -> tuple[str, "dict | OSError"]:
    """Write an archive; returns its name and manifest entry. A loader's worker cannot raise an OSError as it is."""
    path, numbers = folder / name, split.files()[name]
    images, masks = generate_pathfinder(split.spec, len(numbers), split.seed, first=numbers.start)

    def write(file: BinaryIO) -> None:
        with zipfile.ZipFile(file, "w") as archive:
            for number, image, mask in zip(numbers, images, masks, strict=True):
                for name, content in ((image_name(number), image), (target_name(number), 255 * mask)):
                    # The default date of an entry is fixed, so equal stimuli make equal bytes.
                    entry = zipfile.ZipInfo(name)
                    entry.external_attr = 0o644 << 16
                    archive.writestr(entry, cv2.imencode(".png", content)[1].tobytes())

    try:
        write_atomically(path, write)
        return name, {"count": len(numbers), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    except OSError as error:
        hint = "complete archives are kept, the same command resumes there"
        return name, OSError(error.errno, f"{error.strerror}; {hint}", str(path))


def _manifest_to_continue(folder: Path, split: Split) -> dict:
    """The manifest for `split`, with the archives that a manifest in the folder already lists."""
    spec = asdict(split.spec)
    wanted: dict[str, Any] = {"generator": GENERATOR, "seed": list(split.seed), "spec": spec, "count": split.count}
    if not (folder / MANIFEST).exists():
        if any(folder.glob("*.zip")):
            raise ValueError(f"{folder} holds archives but no {MANIFEST}: not written by this program, or damaged")
        return {**wanted, "files": {}}
    found = read_manifest(folder)
    there, asked = ({**manifest["spec"], **manifest} for manifest in (found, wanted))
    keys = ["generator", "seed", *sorted(found["spec"].keys() | spec)]
    if there["count"] > split.count:
        keys.append("count")
    different = [f"{key} {there.get(key)} there, {asked.get(key)} asked for" for key in keys
                 if there.get(key) != asked.get(key)]  # fmt: skip
    if different:
        raise ValueError(f"{folder} holds other stimuli: {', '.join(different)}; name another folder, or delete it")
    return {**wanted, "files": found["files"]}


def _is_intact(path: Path, found: dict[str, dict], count: int) -> bool:
    entry = found.get(path.name, {})
    if entry.get("count") != count or not path.is_file():
        return False
    if hashlib.sha256(path.read_bytes()).hexdigest() == entry.get("sha256"):
        return True
    logging.getLogger(__name__).warning("%s is damaged and is drawn again", path)
    return False


def is_complete(folder: Path, split: Split) -> bool:
    """True if every archive of `split` exists and was completed.

    Raises:
        ValueError: the folder holds something else.
    """
    if not (folder / MANIFEST).exists():
        return False
    written = _manifest_to_continue(folder, split)["files"]
    return all(
        written.get(name, {}).get("count") == len(numbers) and (folder / name).is_file()
        for name, numbers in split.files().items()
    )


def image_name(number: int) -> str:
    return f"{number:06d}.png"


def target_name(number: int) -> str:
    return f"{number:06d}_target.png"


def read_stimulus(path: str, number: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Image and target (0 or 1) of one stimulus, each uint8, H x W.

    Args:
        size: (H, W) of the stimulus.

    Raises:
        FileNotFoundError: no such archive.
        ValueError: names an archive that is damaged or was not written by `write_split`.
    """
    try:
        archive = _open_archive(path, os.getpid())
        image, target = (_read(archive, name, size) for name in (image_name(number), target_name(number)))
        if not np.isin(target, (0, 255)).all():
            raise ValueError("its target has other values than 0 and 255")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no file {path}") from error
    except Exception as error:  # zipfile raises many types for damaged bytes
        raise ValueError(
            f"{path} is damaged or holds no stimulus {number}: {one_line(error)}; delete it and run the generator again"
        ) from error
    return image, (target > 0).astype(np.uint8)


@lru_cache(maxsize=256)
def _open_archive(path: str, process: int) -> zipfile.ZipFile:
    # Opened anew in each process: forked ones would share the position in the file.
    return zipfile.ZipFile(path)


def _read(archive: zipfile.ZipFile, name: str, size: tuple[int, int]) -> np.ndarray:
    with decoding(name, archive.read(name)) as (image, header):
        check_header(header, name, *size[::-1])
        if (header.format, header.mode) != ("PNG", "L"):
            raise ImageError(f"{name} is a {header.format} of mode {header.mode}, not a grey PNG")
        return np.array(image)


def _write_manifest(folder: Path, manifest: dict) -> None:
    ordered = {**manifest, "files": dict(sorted(manifest["files"].items()))}
    write_text(folder / MANIFEST, json.dumps(ordered, indent=1) + "\n")


def read_manifest(folder: Path) -> dict:
    """The manifest of `folder`.

    Raises:
        FileNotFoundError: no manifest.
        ValueError: names a manifest that cannot be read, or its first invalid key.
    """
    path = folder / MANIFEST
    manifest = read_json(str(path))
    for key, holds in RULES.items():
        value = manifest.get(key) if isinstance(manifest, dict) else manifest
        if not holds(value):
            raise ValueError(f"{path} is not a manifest of Pathfinder stimuli: its {key} is {short(value)}")
    return manifest
