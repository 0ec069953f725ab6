"""Pathfinder stimuli on disk: zip archives of PNGs beside a manifest, one folder a split.

An archive holds at most PER_FILE stimuli, each as two PNGs, the image `000123.png` and the target
`000123_target.png` (255 on the target), uncompressed by the archive itself, so that any is read at once.
"""

import errno
import hashlib
import json
import logging
import os
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from torch.utils.data import DataLoader, Dataset

from crbp_d2.files import write_text

from .spec import PathfinderSpec
from .stimuli import GENERATOR, check_fits, generate_pathfinder

PER_FILE = 500
MANIFEST = "manifest.json"
# Wraps the iterable of finished archives, whose number it is told.
Progress = Callable[[Iterable, int], Iterable]


@dataclass(frozen=True)
class Split:
    """What one folder holds.

    spec: of its stimuli.
    seed: of its stimuli, see generate_pathfinder.
    count: of stimuli.
    """

    spec: PathfinderSpec
    seed: tuple[int, ...]
    count: int

    def identity(self) -> dict:
        """What cannot change in a folder that has files."""
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
    """Bring `folder` to hold `split`: draw the archives it lacks, keep those that are there and whole.

    The bytes do not depend on `workers`, nor on kills in between. At a kill the archives being written are lost.

    Args:
        workers: processes that draw.
        progress: shows how far it is.

    Raises:
        ValueError: the folder holds stimuli of another spec, seed, generator or of more stimuli; a spec that
            does not fit its window.
        OSError: for instance a full disk, with the file's name.
    """
    check_fits(split.spec)
    manifest = _manifest_to_continue(folder, split)
    folder.mkdir(parents=True, exist_ok=True)
    for left_over in folder.glob("*.partial"):
        left_over.unlink()
    files = split.files()
    manifest["files"] = {
        name: entry for name, entry in manifest["files"].items() if _is_whole(folder / name, entry, files)
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
    """Item k is the k-th of some archives of a split: written when it is asked for, then (name, manifest entry)."""

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
        except OSError as error:  # returned, since the loader would lose its number and its only line
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
            error.errno, f"cannot write {path}: {reason}; what is written stays, the same command goes on from there"
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


def _is_whole(path: Path, entry: dict, files: dict[str, range]) -> bool:
    if entry["count"] != len(files[path.name]) or not path.exists():
        return False
    if _sha256(path) == entry["sha256"]:
        return True
    logging.getLogger(__name__).warning("%s is damaged and is drawn again", path)
    return False


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _write_manifest(folder: Path, manifest: dict) -> None:
    ordered = {**manifest, "files": dict(sorted(manifest["files"].items()))}
    write_text(folder / MANIFEST, json.dumps(ordered, indent=1) + "\n")


def read_manifest(folder: Path) -> dict:
    """What `write_split` left in `folder`.

    Raises:
        ValueError: names a manifest that cannot be read.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text())
        whole = all(key in manifest for key in ("generator", "seed", "spec", "count", "files"))
    except (UnicodeDecodeError, json.JSONDecodeError, TypeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if not whole:
        raise ValueError(f"{path} is no manifest of Pathfinder stimuli")
    return manifest


def is_complete(folder: Path, split: Split) -> bool:
    """Whether every archive of `split` has been written.

    Raises:
        ValueError: the folder holds something else.
    """
    if not (folder / MANIFEST).exists():
        return False
    manifest = _manifest_to_continue(folder, split)
    return all(
        manifest["files"].get(name, {}).get("count") == len(numbers) for name, numbers in split.files().items()
    )  # fmt: skip


def image_name(number: int) -> str:
    return f"{number:06d}.png"


def target_name(number: int) -> str:
    return f"{number:06d}_target.png"


def read_stimulus(path: str, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Image and target (0 or 1) of one stimulus, each uint8, H x W.

    Raises:
        FileNotFoundError: no such archive.
        ValueError: names an archive that is damaged or not one of ours.
    """
    try:
        archive = _open_archive(path, os.getpid())
        image, target = (_decode(archive.read(name)) for name in (image_name(number), target_name(number)))
    except (zipfile.BadZipFile, KeyError, cv2.error) as error:
        raise ValueError(
            f"{path} is damaged or holds no stimulus {number}: {error}; delete it and run the generator again"
        ) from error
    return image, (target > 0).astype(np.uint8)


@lru_cache(maxsize=256)
def _open_archive(path: str, process: int) -> zipfile.ZipFile:
    # Opened anew in each process: forked ones would share the position in the file.
    return zipfile.ZipFile(path)


def _decode(content: bytes) -> np.ndarray:
    decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE)
    if decoded is None:
        raise zipfile.BadZipFile("not a PNG")
    return decoded
