"""The data doctor: every fault of panoptic data sets, found before anything is trained on them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from detectron2.config import CfgNode
from torch.utils.data import DataLoader, Dataset

from crbp_d2.data.checks import wrong_class_counts
from crbp_d2.data.images import is_folder, read_json
from crbp_d2.data.panoptic.dataset import panoptic_metadata
from crbp_d2.data.panoptic.faults import DatasetError, Fault, Faults
from crbp_d2.data.panoptic.instance_checks import check_instances_json
from crbp_d2.data.panoptic.schema import check_panoptic_json

from .files import Pair, check_pair, pairs_of

# Images that a process checks at a time.
PER_TASK = 32
# Wraps the iterable of finished tasks, whose number it is told.
Progress = Callable[[Iterable, int], Iterable]


@dataclass(frozen=True)
class PanopticFiles:
    """Where one data set lies; see register_panoptic."""

    panoptic_json: str
    panoptic_root: str
    image_root: str
    instances_json: str | None = None


def check_panoptic_dataset(
    panoptic_json: str,
    panoptic_root: str,
    image_root: str,
    *,
    instances_json: str | None = None,
    cfg: CfgNode | None = None,
    workers: int = 1,
    progress: Progress = lambda tasks, count: tasks,
) -> list[Fault]:
    """Every fault of a COCO-panoptic data set: of its JSON, PNGs and images; empty if there is none.

    Of many faults of one kind the first are listed and the others counted. The JSON of 118,000 images takes seconds,
    their files about 15 ms each: use `workers`.

    Args:
        panoptic_json, panoptic_root, image_root, instances_json: see register_panoptic.
        cfg: whose class counts the data set must have.
        workers: processes that read images and PNGs.
        progress: shows how far it is.
    """
    files = PanopticFiles(str(panoptic_json), str(panoptic_root), str(image_root), instances_json)
    return check_panoptic_datasets([files], cfg=cfg, workers=workers, progress=progress)


def check_panoptic_datasets(
    sets: Sequence[PanopticFiles],
    *,
    cfg: CfgNode | None = None,
    workers: int = 1,
    progress: Progress = lambda tasks, count: tasks,
) -> list[Fault]:
    """Every fault of several data sets that are to go together; see check_panoptic_dataset."""
    faults: list[Fault] = []
    tables: dict[str, list] = {}
    for files in sets:
        data, of_json = _read(files.panoptic_json)
        found = Faults(files.panoptic_json)
        of_json = of_json or check_panoptic_json(data, files.panoptic_json)
        readable = isinstance(data, dict) and all(
            isinstance(data.get(key), list) and all(isinstance(entry, dict) for entry in data[key])
            for key in ("images", "annotations", "categories")
        )
        if readable:
            tables[files.panoptic_json] = data["categories"]
            if cfg is not None:
                found.extend(_class_counts(data["categories"], files.panoptic_json, cfg))
            if folders := list(_missing_folders(files)):
                found.extend(folders)
            elif not any(fault.kind == "detection-json" for fault in of_json):
                image_format = "BGR" if cfg is None else cfg.INPUT.FORMAT
                tasks = _Tasks(pairs_of(data, files.panoptic_root, files.image_root), image_format)
                for of_files in tasks.results(workers, progress):
                    found.extend(of_files)
        faults += [*of_json, *found]
        if files.instances_json:
            detections, of_json = _read(files.instances_json)
            panoptic = data if readable else None
            faults += of_json or check_instances_json(detections, files.instances_json, panoptic)
    return [*faults, *_compare_tables(tables)]


def _read(path: str) -> tuple[Any, list[Fault]]:
    try:
        return read_json(path), []
    except FileNotFoundError:
        return None, [Fault("missing-file", path, "", "", "is not there")]
    except ValueError as error:
        return None, [Fault("json", path, "", "", str(error))]


def _missing_folders(files: PanopticFiles) -> Iterator[Fault]:
    for folder in dict.fromkeys((files.panoptic_root, files.image_root)):
        if not is_folder(folder):
            yield Fault("missing-file", folder, "", "", "is no folder")


def _class_counts(categories: list[dict], path: str, cfg: CfgNode) -> list[Fault]:
    try:
        metadata = panoptic_metadata(categories, path)
    except DatasetError:  # its faults are listed already
        return []
    return [Fault("class-count", path, "", key, value) for key, value in wrong_class_counts(cfg, metadata)]


def _compare_tables(tables: dict[str, list]) -> list[Fault]:
    """Faults of sets whose categories are not those of the first."""
    if not tables:
        return []
    (first, expected), *others = tables.items()
    expected = [(c.get("id"), c.get("name"), c.get("isthing")) for c in expected]
    faults = []
    for path, categories in others:
        found = [(c.get("id"), c.get("name"), c.get("isthing")) for c in categories]
        if found != expected:
            position = next(
                (k for k, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b),
                min(len(found), len(expected)),
            )
            here, there = (table[position] if position < len(table) else "none" for table in (found, expected))
            value = f"{here!r} here, {there!r} in {first} (id, name, isthing)"
            faults.append(Fault("category-tables", path, "", f"categories[{position}]", value))
    return faults


class _Tasks(Dataset):
    """Item k: the faults of some images."""

    def __init__(self, pairs: list[Pair], image_format: str):
        self.pairs = pairs
        self.image_format = image_format

    def __len__(self) -> int:
        return -(-len(self.pairs) // PER_TASK)

    def __getitem__(self, k: int) -> list[Fault]:
        pairs = self.pairs[k * PER_TASK : (k + 1) * PER_TASK]
        return [fault for pair in pairs for fault in check_pair(pair, self.image_format)]

    def results(self, workers: int, progress: Progress) -> Iterable[list[Fault]]:
        loader = DataLoader(self, batch_size=None, num_workers=workers if workers > 1 else 0, collate_fn=_as_it_is)
        return progress(loader, len(self))


def _as_it_is(faults: list[Fault]) -> list[Fault]:
    return faults
