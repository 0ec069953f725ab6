"""The data doctor: finds every fault of panoptic and instance data sets before a training."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from detectron2.config import CfgNode
from torch.utils.data import DataLoader, Dataset

from crbp_d2.data.checks import wrong_class_counts
from crbp_d2.data.images import is_folder, read_json
from crbp_d2.data.instance_schema import check_instances_json
from crbp_d2.data.panoptic.dataset import panoptic_metadata
from crbp_d2.data.panoptic.faults import DatasetError, Fault, Faults
from crbp_d2.data.panoptic.schema import check_panoptic_json
from crbp_d2.data.schema import is_table

from .files import Pair, check_pair, images_of, pairs_of

# Images per task of a process.
PER_TASK = 32
# Wraps the iterable of finished tasks; its second argument is their number.
Progress = Callable[[Iterable, int], Iterable]


@dataclass(frozen=True)
class PanopticFiles:
    """Paths of one panoptic data set; see register_panoptic."""

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
    """Every fault of a COCO-panoptic data set: of its JSON, PNGs and images; empty for a valid one.

    The first faults of a kind are listed, the others counted. The JSON of 118,000 images takes seconds, their files
    about 15 ms each: use `workers`.

    Args:
        panoptic_json, panoptic_root, image_root, instances_json: str, see register_panoptic.
        cfg: CfgNode, a model whose class counts the data set must have.
        workers: int, processes that read images and PNGs.
        progress: progress(tasks, number of tasks) -> tasks.
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
    """Every fault of several data sets of one training; see check_panoptic_dataset."""
    faults: list[Fault] = []
    tables: dict[str, list[tuple]] = {}
    for files in sets:
        data, of_json = _read(files.panoptic_json)
        found = Faults(files.panoptic_json)
        if not list(of_json):
            of_json = check_panoptic_json(data, files.panoptic_json)
        readable = isinstance(data, dict) and all(map(is_table, map(data.get, ("images", "annotations", "categories"))))
        if readable:
            tables[files.panoptic_json] = [(c.get("id"), c.get("name"), c.get("isthing")) for c in data["categories"]]
            if cfg is not None:
                _check_class_counts(data["categories"], cfg, found)
            folders = files.panoptic_root, files.image_root
            if not _miss_folders(folders, found) and not any(fault.kind == "detection-json" for fault in of_json):
                _check_files(pairs_of(data, *folders), cfg, workers, progress, found)
        faults += [*of_json, *found]
        if files.instances_json:
            detections, of_json = _read(files.instances_json)
            panoptic = data if readable else None
            faults += list(of_json) or check_instances_json(detections, files.instances_json, panoptic)
    return [*faults, *_compare_tables(tables)]


def check_instance_dataset(
    instances_json: str,
    image_root: str,
    *,
    cfg: CfgNode | None = None,
    workers: int = 1,
    progress: Progress = lambda tasks, count: tasks,
) -> list[Fault]:
    """Every fault of a data set of instances in COCO's detection format: of its JSON and images.

    Args:
        instances_json: str, the annotations.
        image_root: str, folder of the images.
        cfg, workers, progress: see check_panoptic_dataset.
    """
    path = str(instances_json)
    data, of_json = _read(path)
    if list(of_json):
        return list(of_json)
    found = Faults(path)
    if isinstance(data, dict) and is_table(data.get("images")) and not _miss_folders([str(image_root)], found):
        _check_files(images_of(data, str(image_root), relative=False), cfg, workers, progress, found)
    if cfg is not None and isinstance(data, dict) and is_table(data.get("categories")):
        for key, value in wrong_class_counts(cfg, {"thing_classes": data["categories"]}):
            found.add("class-count", key, value)
    return [*check_instances_json(data, path), *found]


def _read(path: str) -> tuple[Any, Faults]:
    faults = Faults(path)
    try:
        return read_json(path), faults
    except FileNotFoundError:
        faults.add("missing-file", "", "does not exist")
    except ValueError as error:
        faults.add("json", "", str(error))
    return None, faults


def _miss_folders(folders: Iterable[str], found: Faults) -> bool:
    missing = [folder for folder in dict.fromkeys(folders) if not is_folder(folder)]
    found.extend(Fault("missing-file", folder, "", "", "is not a folder") for folder in missing)
    return bool(missing)


def _check_files(pairs: list[Pair], cfg: CfgNode | None, workers: int, progress: Progress, found: Faults) -> None:
    tasks = _Tasks(pairs, "BGR" if cfg is None else cfg.INPUT.FORMAT)
    loader = DataLoader(tasks, batch_size=None, num_workers=workers if workers > 1 else 0, collate_fn=_unchanged)
    for of_files in progress(loader, len(tasks)):
        found.extend(of_files)


def _check_class_counts(categories: list[dict], cfg: CfgNode, found: Faults) -> None:
    try:
        metadata = panoptic_metadata(categories, found.file)
    except DatasetError:  # its faults are listed already
        return
    for key, value in wrong_class_counts(cfg, metadata):
        found.add("class-count", key, value)


def _compare_tables(tables: dict[str, list[tuple]]) -> list[Fault]:
    """Data sets whose categories differ from those of the first."""
    if not tables:
        return []
    (first, expected), *others = tables.items()
    faults = []
    for path, found in others:
        if found != expected:
            pairs = enumerate(zip_longest(found, expected, fillvalue="none"))
            position, (here, there) = next((k, pair) for k, pair in pairs if pair[0] != pair[1])
            value = f"{here!r} here, {there!r} in {first} (id, name, isthing)"
            faults.append(Fault("category-tables", path, "", f"categories[{position}]", value))
    return faults


class _Tasks(Dataset):
    """Item k: the faults of PER_TASK images."""

    def __init__(self, pairs: list[Pair], image_format: str):
        self.pairs = pairs
        self.image_format = image_format

    def __len__(self) -> int:
        return -(-len(self.pairs) // PER_TASK)

    def __getitem__(self, k: int) -> list[Fault]:
        pairs = self.pairs[k * PER_TASK : (k + 1) * PER_TASK]
        return [fault for pair in pairs for fault in check_pair(pair, self.image_format)]


def _unchanged(faults: list[Fault]) -> list[Fault]:
    return faults
