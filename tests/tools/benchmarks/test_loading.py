"""Loading by itself and by workers."""

import itertools

from detectron2.data import DatasetCatalog

from tools.benchmarks.loading import (
    NAME,
    PANOPTIC,
    PATHFINDER,
    STREAM,
    loader_of,
    loading_rate,
    loading_tables,
    measure_checks,
    measure_workers,
    stimuli_in_files,
    synthetic_coco,
)


def test_loaders_are_timed_after_their_workers_have_started(monkeypatch):
    clock = itertools.count(step=0.5)
    monkeypatch.setattr("tools.benchmarks.loading.time.perf_counter", lambda: next(clock))
    drawn = {}

    def build(workers):
        drawn[workers] = 0
        while True:
            drawn[workers] += 1
            yield ["stimulus"] * 4

    assert measure_workers(build, workers=(0, 2), batches=5, rounds=1) == {0: 40, 2: 40}
    assert drawn == {0: 1 + 5, 2: 7 + 5}


def test_images_of_the_batches_after_the_first_count(monkeypatch):
    clock = itertools.count(step=0.5)
    monkeypatch.setattr("tools.benchmarks.loading.time.process_time", lambda: next(clock))
    assert loading_rate((["image"] * size for size in (100, 4, 6)), batches=2) == 20


def test_images_like_those_of_coco():
    with synthetic_coco(count=2, side=64) as name:
        batch = next(iter(loader_of(PANOPTIC, name, batch=2)))
        files = [image["file_name"] for image in DatasetCatalog.get(name)]
    assert all(file.endswith(".jpg") for file in files) and name not in DatasetCatalog.list()
    for image in batch:
        assert min(image["image"].shape[1:]) in (640, 672, 704, 736, 768, 800)
        assert image["sem_seg"].shape == image["image"].shape[1:] and len(image["instances"]) > 0


def test_stimuli_of_files_and_of_the_stream():
    with stimuli_in_files("PF6s", count=4) as name:
        (first, *_) = batch = next(iter(loader_of(PATHFINDER, name, batch=3)))
        assert len(batch) == 3 and first["image"].shape == (1, *first["sem_seg"].shape)
    assert not [found for found in DatasetCatalog.list() if NAME in found]
    assert next(iter(loader_of(PATHFINDER, STREAM, batch=1)))[0]["image"].shape == (1, 150, 150)


def test_checks_of_a_valid_json_find_nothing():
    assert set(measure_checks(64)) == {"parse", "check"}


def test_tables():
    tables = loading_tables({"stimuli": 40.0}, {0: 10.0, 1: 15.0})
    assert tables["loading"].rows == [["stimuli", "40.0", "25.0"]]
    assert tables["workers"].rows == [[0, "10.0", "1.00"], [1, "15.0", "1.50"]]
