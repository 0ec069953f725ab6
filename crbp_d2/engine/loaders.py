"""Data loaders whose batches depend on the run's seed and the iteration only.

W: processes; B: images of a batch, over all processes.
"""

import itertools
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog, build_detection_test_loader, build_detection_train_loader
from detectron2.data.build import trivial_batch_collator
from detectron2.data.common import DatasetFromList
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset, Sampler

from crbp_d2.data import register_builtin

from .seeding import AUGMENTATION, SAMPLER, seeded
from .tasks import task_of


def batches(order: Iterable[int], size: int, groups: Sequence[int] | None = None) -> Iterator[list[tuple[int, int]]]:
    """Batches of (record, draw): record numbers in `order`, and how many were drawn before.

    Args:
        size: batch size.
        groups: the group of each record; a batch has records of one group. None: a single group.
    """
    waiting: dict[int, list[tuple[int, int]]] = {}
    for draw, record in enumerate(order):
        group = waiting.setdefault(groups[record] if groups else 0, [])
        group.append((record, draw))
        if len(group) == size:
            yield group.copy()
            group.clear()


class TrainLoader:
    """Endless batches of this process.

    The order of the records is drawn from `seed`, their augmentation from (seed, record, draw): neither depends
    on workers, on the number of processes or on where iteration starts, and the records before `first_batch` are
    skipped without being read. Images of a batch are dealt to the processes in turn.

    Args:
        records: record by number.
        mapper: record -> what the model takes.
        order: gives the endless sequence of record numbers, as the global generators are seeded.
        batch_size: B.
        num_workers: number of worker processes of this process.
        groups: see `batches`.

    `seed` and `first_batch` may be set until iteration starts.

    Raises (while iterating):
        OSError, ValueError: reading a record failed; one line with its number.
    """

    def __init__(
        self,
        records: Dataset,
        mapper: Callable[[dict], dict],
        order: Callable[[], Iterable[int]],
        batch_size: int,
        num_workers: int = 0,
        groups: Sequence[int] | None = None,
    ):
        self.records = records
        self.mapper = mapper
        self.order = order
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.groups = groups
        self.seed = 0
        self.first_batch = 0
        self._running: weakref.WeakSet[Generator] = weakref.WeakSet()

    def __iter__(self) -> Iterator[list[dict]]:
        self._running.add(batches := self._batches())
        return batches

    def close(self) -> None:
        """End all iterations and their workers now: when garbage is collected, workers may be waited for in vain."""
        for batches in list(self._running):
            batches.close()

    def _batches(self) -> Generator[list[dict], None, None]:
        loader = DataLoader(
            AugmentedRecords(self.records, self.mapper, self.seed),
            batch_sampler=self._keys(),
            num_workers=self.num_workers,
            collate_fn=trivial_batch_collator,
            # Own generator: every start would draw from the global one.
            generator=torch.Generator(),
        )
        for batch in loader:
            for record in batch:
                if isinstance(record, Unreadable):
                    raise record.error()
            yield batch

    def _keys(self) -> Iterator[list[tuple[int, int]]]:
        with seeded(self.seed, SAMPLER):
            order = self.order()
        every = itertools.islice(batches(order, self.batch_size, self.groups), self.first_batch, None)
        for batch in every:
            yield batch[comm.get_rank() :: comm.get_world_size()]


class UnusableRecord(ValueError):
    """A record with invalid files."""


class Unreadable:
    """Placeholder for a record that could not be read: an exception would carry a worker's traceback."""

    def __init__(self, number: int, error: Exception):
        self.kind: type[Exception] = FileNotFoundError if isinstance(error, FileNotFoundError) else OSError
        if not isinstance(error, OSError):
            self.kind = UnusableRecord
        text = f"key {error} is missing" if isinstance(error, KeyError) else str(error)
        self.message = f"training record {number} cannot be used: {' '.join(text.split())}"

    def error(self) -> Exception:
        return self.kind(self.message)


class AugmentedRecords(Dataset):
    """Records by (number, draw), mapped with the random numbers of that draw."""

    def __init__(self, records: Dataset, mapper: Callable[[dict], dict], seed: int):
        self.records = records
        self.mapper = mapper
        self.seed = seed

    def __getitem__(self, key: tuple[int, int]) -> dict | Unreadable:
        number, draw = key
        try:
            with seeded(self.seed, AUGMENTATION, number, draw):
                return self.mapper(self.records[number])
        except (OSError, ValueError, KeyError) as error:
            return Unreadable(number, error)


def build_train_loader(cfg: CfgNode) -> TrainLoader:
    """Batches of files in the order of detectron2's sampler, of a stream one record after the other.

    Raises:
        ValueError: a data set has no record, or none that DATALOADER.FILTER_EMPTY_ANNOTATIONS keeps.
    """
    register_builtin()
    mapper = task_of(cfg).mapper(cfg, is_train=True)
    settings = cfg.SOLVER.IMS_PER_BATCH, cfg.DATALOADER.NUM_WORKERS
    if any(is_stream(name) for name in cfg.DATASETS.TRAIN):
        return TrainLoader(DatasetCatalog.get(cfg.DATASETS.TRAIN[0]), mapper, itertools.count, *settings)
    try:
        with seeded(0, SAMPLER):
            records = build_detection_train_loader.from_config(cfg, mapper=mapper)["dataset"]
    except AssertionError as error:
        raise ValueError(f"DATASETS.TRAIN {cfg.DATASETS.TRAIN} cannot be trained on: {error}") from error

    def order() -> Iterable[int]:
        sampler = build_detection_train_loader.from_config(cfg, mapper=mapper, dataset=records)["sampler"]
        # The sequence that detectron2's samplers deal to the processes.
        return sampler._infinite_indices()

    groups = None
    # Records of semantic maps may have no size.
    if cfg.DATALOADER.ASPECT_RATIO_GROUPING and all("width" in record for record in records):
        groups = [int(record["width"] > record["height"]) for record in records]
    return TrainLoader(DatasetFromList(records, copy=False), mapper, order, *settings, groups)


class WholeBatches(Sampler):
    """Record numbers of this process in an evaluation: complete batches, so that a batch does not depend on W.

    (A batch norm without running averages mixes the images of a batch.)
    """

    def __init__(self, size: int, batch_size: int):
        count = -(-size // batch_size)
        first, last = (count * k // comm.get_world_size() for k in (comm.get_rank(), comm.get_rank() + 1))
        self.numbers = range(first * batch_size, min(last * batch_size, size))

    def __iter__(self) -> Iterator[int]:
        return iter(self.numbers)

    def __len__(self) -> int:
        return len(self.numbers)


def build_test_loader(cfg: CfgNode, name: str) -> DataLoader:
    """detectron2's loader with batches of TEST.IMS_PER_BATCH, which are the same for any number of processes."""
    register_builtin()
    mapper = task_of(cfg).mapper(cfg, is_train=False)
    size = cfg.TEST.IMS_PER_BATCH
    settings = build_detection_test_loader.from_config(cfg, name, mapper=mapper)
    settings["sampler"] = WholeBatches(len(settings["dataset"]), size)
    return build_detection_test_loader(**settings, batch_size=size)


def is_stream(name: str) -> bool:
    """Returns whether a registered data set is endless."""
    return getattr(MetadataCatalog.get(name), "endless", False)
