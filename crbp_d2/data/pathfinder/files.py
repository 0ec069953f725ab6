"""Pathfinder stimuli on disk: zip archives of PNGs and a manifest, one folder a split.

An archive holds at most PER_FILE stimuli, each as two grey PNGs, the image `000123.png` and the target
`000123_target.png` (255 on the target), stored without compression, so that any is read directly.
"""

import errno
import hashlib
import json
import logging
import os
import re
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from torch.utils.data import DataLoader, Dataset

from crbp_d2.utils.files import write_text

from ..images import ImageError, check_header, decoding, one_line, read_json
from ..panoptic.faults import Faults
from ..schema import Column, check_columns, is_number
from .spec import PathfinderSpec
from .stimuli import GENERATOR, check_fits, generate_pathfinder

PER_FILE = 500
MANIFEST = "manifest.json"
# Wraps the iterable of finished archives; its second argument is their number.
Progress = Callable[[Iterable, int], Iterable]


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

    def identity(self) -> dict:
        """Entries of the manifest that must not change in a folder with files."""
        return {"generator": GENERATOR, "seed": list(self.seed), "spec": asdict(self.spec)}

    def files(self) -> dict[str, range]:
        """Name of each archive -> numbers of its stimuli."""
        starts = range(0, self.count, PER_FILE)
        return {
            f"{k:05d}.zip": range(first, min(first + PER_FILE, self.count)) for k, first in enumerate(starts)
        }  # fmt: skip


def write_split(
    folder: Path, split: Split, workers: int = 1, progress: Progress = lambda archives, count: archives
) -> None:
    """Complete `folder`: keep its intact archives, draw the others.

    The bytes depend neither on `workers` nor on kills in between. A kill loses the archives being written.

    Args:
        workers: int, processes that draw.
        progress: progress(archives, their number) -> archives.

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
    manifest["files"] = {
        name: entry for name, entry in manifest["files"].items() if _is_intact(folder / name, entry, files)
    }  # fmt: skip
    _write_manifest(folder, manifest)
    missing = _Archives(folder, split, [name for name in files if name not in manifest["files"]])
    loader = DataLoader(missing, batch_size=None, num_workers=workers if workers > 1 else 0)
    for name, entry in progress(loader, len(missing)):
        if isinstance(entry, OSError):
            raise entry
        manifest["files"][name] = entry
        _write_manifest(folder, manifest)


class _Archives(Dataset):
    """Item k writes the k-th of some archives of a split and is (name, manifest entry)."""

    def __init__(self, folder: Path, split: Split, names: list[str]):
        self.folder = folder
        self.split = split
        self.names = names

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, k: int) -> tuple[str, "dict | OSError"]:
        name = self.names[k]
        try:
            return name, _write_archive(self.folder / name, self.split, self.split.files()[name])
        except OSError as error:  # returned, since the loader would lose number and message
            return name, error


def _write_archive(path: Path, split: Split, numbers: range) -> dict:
    images, masks = generate_pathfinder(split.spec, len(numbers), split.seed, first=numbers.start)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with zipfile.ZipFile(partial, "w") as archive:
            for number, image, mask in zip(numbers, images, masks, strict=True):
                for name, content in ((image_name(number), image), (target_name(number), 255 * mask)):
                    # The default date of an entry is fixed, so equal stimuli make equal bytes.
                    entry = zipfile.ZipInfo(name)
                    entry.external_attr = 0o644 << 16
                    archive.writestr(entry, cv2.imencode(".png", content)[1].tobytes())
        report = {"count": len(numbers), "sha256": _sha256(partial)}
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        reason = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
        raise OSError(
            error.errno, f"cannot write {path}: {reason}; complete archives are kept, the same command resumes there"
        ) from error
    return report


def _manifest_to_continue(folder: Path, split: Split) -> dict:
    wanted = {**split.identity(), "count": split.count, "files": {}}
    if not (folder / MANIFEST).exists():
        if folder.exists() and any(path.suffix == ".zip" for path in folder.iterdir()):
            raise ValueError(f"{folder} holds archives but no {MANIFEST}: not written by this program, or damaged")
        return wanted
    found = read_manifest(folder)
    for key in ("generator", "seed", "spec"):
        if found[key] != wanted[key]:
            raise ValueError(
                f"{folder} holds stimuli of another {key}: {_differences(found[key], wanted[key])}; name another "
                "folder, or delete that one"
            )
    if found["count"] > split.count:
        raise ValueError(
            f"{folder} holds {found['count']} stimuli, more than the {split.count} asked for; name another folder, or "
            "delete that one"
        )
    return {**wanted, "files": found["files"]}


def _differences(found, wanted) -> str:
    if isinstance(found, dict) and isinstance(wanted, dict):
        keys = [key for key in {**wanted, **found} if found.get(key) != wanted.get(key)]
        return ", ".join(f"{key} {found.get(key)} there, {wanted.get(key)} asked for" for key in keys)
    return f"{found} there, {wanted} asked for"


def _is_intact(path: Path, entry: dict, files: dict[str, range]) -> bool:
    if entry["count"] != len(files.get(path.name, ())) or not path.is_file():
        return False
    if _sha256(path) == entry["sha256"]:
        return True
    logging.getLogger(__name__).warning("%s is damaged and is drawn again", path)
    return False


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(2**20):
            digest.update(part)
    return digest.hexdigest()


def is_complete(folder: Path, split: Split) -> bool:
    """Whether every archive of `split` has been written; a file that is gone since then counts.

    Raises:
        ValueError: the folder holds something else.
    """
    if not (folder / MANIFEST).exists():
        return False
    written = _manifest_to_continue(folder, split)["files"]
    if len(written) < -(-split.count // PER_FILE):  # before all names are made of a count that an edit may have raised
        return False
    return all(written.get(name, {}).get("count") == len(numbers) for name, numbers in split.files().items())


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
    if not os.path.isfile(path) and os.path.exists(path):
        raise ValueError("not a file")
    return zipfile.ZipFile(path)


def _read(archive: zipfile.ZipFile, name: str, size: tuple[int, int]) -> np.ndarray:
    entry = archive.getinfo(name)
    # Stored entries are never larger than their file.
    if entry.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed by method {entry.compress_type}; stored entries are needed")
    with decoding(name, archive.read(entry)) as (image, header):
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
    path = str(folder / MANIFEST)
    manifest, faults = read_json(path), Faults(path)
    if not isinstance(manifest, dict):
        raise ValueError(f"{path} is not a manifest of Pathfinder stimuli")
    check_columns([manifest], "manifest", MANIFEST_COLUMNS, faults)
    faults.raise_harmful()
    return manifest


def _is_count(most: int, least: int = 1) -> Callable[[object], bool]:
    return lambda value: type(value) is int and least <= value <= most


def _are_files(files: object) -> bool:
    return isinstance(files, dict) and all(
        re.fullmatch(r"\d{5,}\.zip", name, re.ASCII)
        and isinstance(entry, dict)
        and _is_count(PER_FILE)(entry.get("count"))
        and isinstance(entry.get("sha256"), str)
        for name, entry in files.items()
    )


MANIFEST_COLUMNS = (
    Column("generator", _is_count(2**31, 0), "a whole number"),
    Column(
        "seed", lambda v: isinstance(v, list) and bool(v) and all(map(_is_count(2**64, 0), v)), "whole numbers from 0"
    ),
    Column("spec", lambda v: isinstance(v, dict) and all(map(is_number, v.values())), "numbers by name"),
    Column("count", _is_count(10**8), "1 to 100,000,000"),
    Column("files", _are_files, "archives by name, each with count and sha256"),
)
