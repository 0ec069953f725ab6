"""Pathfinder data sets by name: `pathfinder_PF14_train`, `_val` on disk, `_stream` drawn during training."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog
from iopath.common.file_io import file_lock
from torch.utils.data import Dataset

from .files import MANIFEST, Split, is_complete, read_manifest, write_split
from .spec import SPECS, PathfinderSpec, pathfinder_spec

# Second number of a stimulus' seed, after the data set's own, so that no two splits have a stimulus in common.
SPLIT_SEEDS = {"train": 1, "val": 2, "stream": 3}
# Default number of stimuli drawn on first use.
COUNTS = {"train": 10_000, "val": 500}
# Presets small enough to be drawn on first use.
SMALL = ("PF6s", "PF9s", "PF12s")


@dataclass(frozen=True)
class PathfinderSource:
    """Source of the stimuli of one registered split.

    name: str, name of the spec in data-set and folder names.
    count: int, required number of stimuli; None for those on disk, or the default of COUNTS.
    folder: str, parent of the splits' folders; None for DETECTRON2_DATASETS/pathfinder/<name> at the time of use.
    on_first_use: bool, whether missing files are drawn when they are needed.
    """

    name: str
    spec: PathfinderSpec
    split: str
    seed: int
    count: int | None
    folder: str | None
    on_first_use: bool

    @property
    def path(self) -> Path:
        return (Path(self.folder) if self.folder else default_folder(self.name)) / self.split

    def content(self) -> Split:
        """Present or required content of the folder."""
        if self.count is None and (self.path / MANIFEST).exists():
            manifest = read_manifest(self.path)
            return Split(self.spec, tuple(manifest["seed"]), manifest["count"])
        return split_of(self.spec, self.split, self.seed, self.count or COUNTS[self.split])

    def check_available(self) -> None:
        """Check that the files exist or can be drawn.

        Raises:
            FileNotFoundError: names the missing folder and an alternative.
            ValueError: the folder holds something else.
        """
        if self.split == "stream" or self.on_first_use or (self.path / MANIFEST).exists():
            return
        raise FileNotFoundError(
            f"The data set pathfinder_{self.name}_{self.split} is missing: there is no {self.path.absolute()} "
            f"(DETECTRON2_DATASETS is {_root()!r}); `tools/generate_pathfinder.py --spec {self.name}` writes it, and "
            f"DATASETS.TRAIN \"('pathfinder_{self.name}_stream',)\" trains without it."
        )

    def records(self) -> list[dict]:
        """One dict a stimulus: file_name, image_id, height, width.

        Raises:
            FileNotFoundError: see check_available.
            ValueError: the folder holds something else, or is not complete.
        """
        self.check_available()
        content, side = self.content(), self.spec.image_size
        if self.on_first_use and not is_complete(self.path, content):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # One of several processes draws, the others wait for its files.
            with file_lock(str(self.path)):
                if not is_complete(self.path, content):
                    logging.getLogger(__name__).info("Drawing %d stimuli into %s", content.count, self.path)
                    write_split(self.path, content, workers=os.cpu_count() or 1)
        if not is_complete(self.path, content):
            raise ValueError(f"{self.path} is not complete: run tools/generate_pathfinder.py once more")
        return [
            {"file_name": str(self.path / name), "image_id": k, "height": side, "width": side}
            for name, numbers in content.files().items()
            for k in numbers
        ]


class PathfinderStream(Dataset):
    """An endless data set: record k is stimulus k of a seed, drawn by the mapper in the loader's workers."""

    def __init__(self, source: PathfinderSource):
        self.source = source
        self.seed = (source.seed, SPLIT_SEEDS["stream"])

    def __getitem__(self, index: int) -> dict:
        side = self.source.spec.image_size
        return {"stimulus": (self.source.spec, self.seed, index), "image_id": index, "height": side, "width": side}


def register_pathfinder(
    spec: PathfinderSpec | str,
    name: str | None = None,
    *,
    root: str | None = None,
    num_train: int | None = None,
    num_val: int | None = None,
    seed: int = 0,
    on_first_use: bool = True,
) -> None:
    """Register `pathfinder_<name>_train`, `_val` and `_stream`. Nothing is read or drawn before its first use.

    Args:
        spec: PathfinderSpec, or str, the name of a preset.
        name: str, name of the data sets; by default that of the preset.
        root: str, parent of the stimuli's folder; default DETECTRON2_DATASETS/pathfinder.
        num_train, num_val: int, number of stimuli; by default those on disk, or 10,000 and 500.
        seed: int, seed of all stimuli.
        on_first_use: bool, draw missing files when they are needed; otherwise all files that
            `tools/generate_pathfinder.py` has written are used.

    Raises:
        ValueError: an unknown preset, a spec without a name, counts below 1 or a negative seed; the names are
            registered with other arguments.
    """
    if name is None:
        if not isinstance(spec, str):
            raise ValueError("register_pathfinder: a spec of your own needs a name")
        name = spec
    spec = pathfinder_spec(spec)
    counts = {"train": num_train, "val": num_val, "stream": None}
    if any(count is not None and count < 1 for count in counts.values()) or seed < 0:
        raise ValueError(
            f"register_pathfinder: counts must be at least 1 and seed at least 0, got num_train={num_train}, "
            f"num_val={num_val}, seed={seed}"
        )
    folder = os.path.join(root, name) if root else None
    for split, count in counts.items():
        _register(PathfinderSource(name, spec, split, seed, count, folder, on_first_use))


def _register(source: PathfinderSource) -> None:
    name = f"pathfinder_{source.name}_{source.split}"
    metadata = MetadataCatalog.get(name)
    if name in DatasetCatalog.list():
        if metadata.source != source:
            raise ValueError(f"the name {name!r} is taken by {metadata.source}; choose another than {source.name!r}")
        return
    stream = source.split == "stream"
    DatasetCatalog.register(name, (lambda: PathfinderStream(source)) if stream else source.records)
    metadata.set(
        source=source,
        check_available=source.check_available,
        evaluator_type="pathfinder",
        stuff_classes=["background", "target"],
        stuff_colors=[(0, 0, 0), (255, 255, 255)],
        ignore_label=255,
        image_channels=1,
        endless=stream,
    )


def register_presets() -> None:
    """Register every preset: the small ones are drawn on first use, those of the paper by the tool."""
    for name in SPECS:
        if f"pathfinder_{name}_train" not in DatasetCatalog.list():
            register_pathfinder(name, on_first_use=name in SMALL)


def split_of(spec: PathfinderSpec, split: str, seed: int, count: int) -> Split:
    """Required content of a split's folder."""
    return Split(spec, (seed, SPLIT_SEEDS[split]), count)


def default_folder(name: str) -> Path:
    """Default parent of the folders of a spec's splits."""
    return Path(_root()) / "pathfinder" / name


def _root() -> str:
    return os.environ.get("DETECTRON2_DATASETS", "datasets")
