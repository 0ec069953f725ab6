"""Data loaders, of files and of endless streams."""

import itertools
from collections.abc import Iterable, Iterator

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog, build_detection_test_loader, build_detection_train_loader
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from .tasks import task_of


class InOrder(IterableDataset):
    """The records 0, 1, 2, ... of an endless data set, each for one process and one worker of its loader.

    Args:
        stream: gives a record for any index.
        batch_size: of this process; a worker draws whole batches, so that they come in order.

    `first` is the record to begin with; it may be set until iteration starts.
    """

    def __init__(self, stream: Dataset, batch_size: int):
        self.stream = stream
        self.batch_size = batch_size
        self.first = 0

    def __iter__(self) -> Iterator[dict]:
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        for batch in itertools.count(number, workers):
            for k in range(batch * self.batch_size, (batch + 1) * self.batch_size):
                yield self.stream[self.first + k * comm.get_world_size() + comm.get_rank()]


def build_train_loader(cfg: CfgNode) -> Iterable[list[dict]]:
    """detectron2's loader for files; for a stream one that takes its records in order."""
    mapper = task_of(cfg).mapper(cfg, is_train=True)
    if not any(is_stream(name) for name in cfg.DATASETS.TRAIN):
        return build_detection_train_loader(cfg, mapper=mapper)
    batch_size = cfg.SOLVER.IMS_PER_BATCH // comm.get_world_size()
    records = InOrder(DatasetCatalog.get(cfg.DATASETS.TRAIN[0]), batch_size)
    loader = build_detection_train_loader(cfg, mapper=mapper, dataset=records, aspect_ratio_grouping=False)
    loader.records = records
    return loader


def start_stream_at(loader: Iterable[list[dict]], record: int) -> None:
    """Have a loader of `build_train_loader` begin with this record; one of files is left as it is."""
    if isinstance(getattr(loader, "records", None), InOrder):
        loader.records.first = record


def build_test_loader(cfg: CfgNode, name: str) -> DataLoader:
    """detectron2's loader with batches of TEST.IMS_PER_BATCH."""
    mapper = task_of(cfg).mapper(cfg, is_train=False)
    return build_detection_test_loader(cfg, name, mapper=mapper, batch_size=cfg.TEST.IMS_PER_BATCH)


def is_stream(name: str) -> bool:
    """Whether a registered data set has no end."""
    return getattr(MetadataCatalog.get(name), "endless", False)
