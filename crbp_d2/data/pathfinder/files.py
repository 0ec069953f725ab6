"""Pathfinder stimuli on disk: zip archives of PNGs beside a manifest, one folder a split.

See `archives` for what an archive holds.
"""

import errno
import hashlib
import logging
import os
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
from torch.utils.data import DataLoader, Dataset

from .archives import MANIFEST, PER_FILE, image_name, read_manifest, target_name, write_manifest
from .spec import PathfinderSpec
from .stimuli import GENERATOR, check_fits, generate_pathfinder

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
    write_manifest(folder, manifest)
    missing = _Archives(folder, split, [name for name in files if name not in manifest["files"]])
    loader = DataLoader(missing, batch_size=None, num_workers=workers if workers > 1 else 0)
    for name, entry in progress(loader, len(missing)):
        if isinstance(entry, OSError):
            raise entry
        manifest["files"][name] = entry
        write_manifest(folder, manifest)


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
            error.errno, f"cannot write {path}: {reason}; what is written stays, the same command resumes there"
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
    """Whether every archive of `split` has been written.

    Raises:
        ValueError: the folder holds something else.
    """
    if not (folder / MANIFEST).exists():
        return False
    written = _manifest_to_continue(folder, split)["files"]
    if len(written) < -(-split.count // PER_FILE):  # before all names are made of a count that an edit may have raised
        return False
    return all(written.get(name, {}).get("count") == len(numbers) for name, numbers in split.files().items())
