"""The batches of training and evaluation: the same for any workers, processes and starting point."""

import itertools

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from torch.utils.data import Dataset

from crbp_d2.engine import loaders
from crbp_d2.engine.loaders import TrainLoader, WholeBatches, batches, build_train_loader
from crbp_d2.engine.seeding import seed_generators, seeded


class Numbers(Dataset):
    """Record k is k itself."""

    def __getitem__(self, number):
        return {"number": number}


class Noise:
    """Adds what the three generators draw."""

    def __call__(self, record):
        import random

        import torch

        return {**record, "noise": (random.random(), np.random.rand(), torch.rand(()).item())}  # noqa: NPY002


def shuffled():
    """An endless order drawn from the global generator, as detectron2's samplers are seeded."""
    rng = np.random.default_rng(np.random.randint(2**31))  # noqa: NPY002
    return itertools.chain.from_iterable(rng.permutation(10).tolist() for _ in itertools.count())


def taken(count, *, first=0, workers=0, seed=3, groups=None, size=4, order=shuffled):
    loader = TrainLoader(Numbers(), Noise(), order, size, workers, groups)
    loader.seed, loader.first_batch = seed, first
    found = list(itertools.islice(loader, count))
    loader.close()
    return found


def as_process(monkeypatch, rank, processes):
    monkeypatch.setattr(loaders.comm, "get_rank", lambda: rank)
    monkeypatch.setattr(loaders.comm, "get_world_size", lambda: processes)


@pytest.mark.parametrize("groups", [None, [0, 1, 1, 0, 1, 0, 0, 1, 1, 1]])
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_iteration_that_starts_later_gives_the_same_batches(workers, groups):
    whole = taken(9, groups=groups)
    assert taken(4, first=5, workers=workers, groups=groups) == whole[5:]
    if groups:
        assert all(len({groups[record["number"]] for record in batch}) == 1 for batch in whole)


def test_order_and_noise_are_those_of_the_seed():
    assert taken(3) == taken(3) != taken(3, seed=4)
    # Record 0 of the first and of the second epoch.
    records = [record for batch in taken(5) for record in batch]
    noise = [record["noise"] for record in records if record["number"] == 0]
    assert len(noise) == 2 and len({*noise[0], *noise[1]}) == 6


def test_the_generators_of_training_are_left_alone():
    def draws(read):
        seed_generators(1)
        if read:
            taken(2)
        return np.random.rand()  # noqa: NPY002

    assert draws(True) == draws(False)
    with seeded(5):
        first = np.random.rand()  # noqa: NPY002
    with seeded(5):
        assert np.random.rand() == first  # noqa: NPY002


@pytest.mark.parametrize("groups", [None, [0, 1] * 5])
def test_processes_share_the_batches_of_one(monkeypatch, groups):
    whole = taken(6, groups=groups)
    parts = []
    for rank in (0, 1):
        as_process(monkeypatch, rank, 2)
        parts.append(taken(6, groups=groups))
    assert [[*map(list, zip(*pair, strict=True))] for pair in zip(*parts, strict=True)] == [
        [batch[k : k + 2] for k in range(0, 4, 2)] for batch in whole
    ]


def test_a_batch_waits_for_records_of_its_group():
    order = [0, 1, 2, 3, 4, 5, 6]
    groups = [0, 1, 0, 0, 1, 1, 0]
    assert list(batches(order, 2, groups)) == [[(0, 0), (2, 2)], [(1, 1), (4, 4)], [(3, 3), (6, 6)]]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    "error,kind,part",
    [
        (FileNotFoundError(2, "No such file or directory", "/data/7.png"), FileNotFoundError, "/data/7.png"),
        (ValueError("7.png is\n cut"), ValueError, "7.png is cut"),
        (KeyError("bbox"), ValueError, "bbox"),
    ],
)
def test_a_record_that_cannot_be_read_is_named_in_one_line(workers, error, kind, part):
    class Failing(Noise):
        def __call__(self, record):
            if record["number"] == 7:
                raise error
            return record

    loader = TrainLoader(Numbers(), Failing(), itertools.count, 4, workers)
    with pytest.raises(kind) as raised:
        list(itertools.islice(loader, 3))
    message = str(raised.value)
    assert part in message and "record 7" in message and "\n" not in message and "Traceback" not in message


@pytest.mark.parametrize("size,batch_size,processes", [(7, 2, 2), (8, 3, 2), (3, 2, 4), (1, 16, 2), (48, 16, 1)])
def test_evaluation_deals_whole_batches(monkeypatch, size, batch_size, processes):
    numbers = []
    for rank in range(processes):
        as_process(monkeypatch, rank, processes)
        of_rank = WholeBatches(size, batch_size)
        assert len(of_rank) == len(list(of_rank))
        assert not len(of_rank) or next(iter(of_rank)) % batch_size == 0
        numbers += of_rank
    assert numbers == list(range(size))


@pytest.mark.parametrize("sampler", ["TrainingSampler", "RepeatFactorTrainingSampler"])
def test_the_samplers_of_detectron2_are_continued(sampler, pathfinder_config):
    name = "loader_test"
    boxes = [{"category_id": k % 3, "bbox": [0, 0, 1, 1], "bbox_mode": 1, "iscrowd": 0} for k in range(3)]
    records = [
        {"file_name": f"{k}.png", "image_id": k, "width": 20 + k % 2, "height": 20, "annotations": boxes[: 1 + k % 3]}
        for k in range(12)
    ]
    DatasetCatalog.register(name, lambda: records)
    MetadataCatalog.get(name).set(evaluator_type="pathfinder", thing_classes=["a", "b", "c"])
    try:
        cfg = pathfinder_config(
            "DATASETS.TRAIN", (name,), "DATASETS.TEST", (), "DATALOADER.SAMPLER_TRAIN", sampler,
            "DATALOADER.REPEAT_THRESHOLD", 0.9, "DATALOADER.NUM_WORKERS", 0,
        )  # fmt: skip

        def ids(first, count):
            loader = build_train_loader(cfg)
            loader.mapper = dict
            loader.seed, loader.first_batch = 5, first
            return [[record["image_id"] for record in batch] for batch in itertools.islice(loader, count)]

        assert ids(6, 4) == ids(0, 10)[6:]
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_gives_every_stimulus_once_and_in_order(workers, pathfinder_config):
    loader = build_train_loader(pathfinder_config("DATALOADER.NUM_WORKERS", workers, "SOLVER.IMS_PER_BATCH", 3))
    loader.first_batch = 10
    ids = [[record["image_id"] for record in batch] for batch in itertools.islice(loader, 4)]
    assert ids == [[30, 31, 32], [33, 34, 35], [36, 37, 38], [39, 40, 41]]


def test_a_data_set_without_records_is_named(pathfinder_config):
    DatasetCatalog.register("loader_test_empty", list)
    MetadataCatalog.get("loader_test_empty").set(evaluator_type="pathfinder")
    try:
        cfg = pathfinder_config("DATASETS.TRAIN", ("loader_test_empty",), "DATASETS.TEST", ())
        with pytest.raises(ValueError, match=r"DATASETS\.TRAIN.*loader_test_empty"):
            build_train_loader(cfg)
    finally:
        DatasetCatalog.remove("loader_test_empty")
        MetadataCatalog.remove("loader_test_empty")
