"""Throughput of a training loader, in one process and with workers."""

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from detectron2.config import get_cfg
from pycocotools import mask as coco_mask

from crbp_d2 import add_crbp_config
from crbp_d2.data import register_panoptic, register_pathfinder
from crbp_d2.data.instance_schema import check_instances_json
from crbp_d2.data.panoptic.toy import write_toy_panoptic
from crbp_d2.engine import Trainer
from tools.data_sets import free

from .tables import Table
from .whole_model import CONFIGS

WORKERS = (0, 1, 2)
# Side of a square with the pixels of 640 x 480, most frequent in COCO, and how its JPEG files are compressed.
COCO_SIDE, JPEG_QUALITY = 554, 90
COCO_IMAGES, STIMULI = 24, 64
NAME = "benchmark_of_loading"
PANOPTIC, PATHFINDER = "panoptic_R50_crbp.yaml", "pathfinder/PF14_hgru_crbp.yaml"
STREAM = "pathfinder_PF14_stream"
DRAWN, FILES, IMAGES = "PF14, drawn anew", "PF14, from files", "COCO-like images"

Loader = Iterable[list[dict]]


def loader_of(config: str, dataset: str, workers: int = 0, batch: int = 8) -> Loader:
    """The training loader of a file in configs/ on another data set, endless."""
    cfg = get_cfg()
    add_crbp_config(cfg)
    cfg.merge_from_file(str(CONFIGS / config))
    cfg.merge_from_list(["DATASETS.TRAIN", (dataset,), "SOLVER.IMS_PER_BATCH", batch,
                         "DATALOADER.NUM_WORKERS", workers])  # fmt: skip
    cfg.DATASETS.TEST = ()
    return Trainer.build_train_loader(cfg)


@contextmanager
def synthetic_coco(count: int = COCO_IMAGES, side: int = COCO_SIDE) -> Iterator[str]:
    """Name of a panoptic data set of toy scenes as JPEG files; its temporary folder is removed afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "scenes"
        write_toy_panoptic(root, "train", count, side, seed=0, hard=True)
        path = root / "panoptic.json"
        data = json.loads(path.read_text())
        for image in data["images"]:
            pixels = cv2.imread(str(root / "images" / image["file_name"]))
            image["file_name"] = Path(image["file_name"]).with_suffix(".jpg").name
            cv2.imwrite(str(root / "images" / image["file_name"]), pixels, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        path.write_text(json.dumps(data))
        register_panoptic(NAME, str(path), str(root / "panoptic"), str(root / "images"))
        with _removed_afterwards(NAME):
            yield NAME


@contextmanager
def stimuli_in_files(spec: str = "PF14", count: int = STIMULI) -> Iterator[str]:
    """Name of a Pathfinder data set; its temporary folder is removed afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        names = [f"pathfinder_{NAME}_{split}" for split in ("train", "val", "stream")]
        register_pathfinder(spec, NAME, root=folder, num_train=count, num_val=1)
        with _removed_afterwards(*names):
            yield names[0]


@contextmanager
def _removed_afterwards(*names: str) -> Iterator[None]:
    try:
        yield
    finally:
        free(*names)


def loading_rate(loader: Loader, batches: int) -> float:
    """Images a second of the processor, of a loader without workers, after a first batch."""
    iterator = iter(loader)
    next(iterator)
    start = time.process_time()
    images = sum(len(batch) for batch in islice(iterator, batches))
    return images / (time.process_time() - start)


def measure_loading(batches: int = 8) -> dict[str, float]:
    """Images a second and core, by kind of data."""
    with synthetic_coco() as coco, stimuli_in_files() as stimuli:
        loaders = {DRAWN: (PATHFINDER, STREAM), FILES: (PATHFINDER, stimuli), IMAGES: (PANOPTIC, coco)}
        return {name: loading_rate(loader_of(*given), batches) for name, given in loaders.items()}


def measure_workers(
    build_loader: Callable[[int], Loader], workers: Sequence[int] = WORKERS, batches: int = 30, rounds: int = 3
) -> dict[int, float]:
    """Images a second of the clock by the loader's workers, medians over rounds; the process does nothing else.

    Args:
        build_loader: number of workers -> endless loader of batches.
    """
    rates: dict[int, list[float]] = {count: [] for count in workers}
    for _ in range(rounds):
        for count in workers:
            iterator = iter(build_loader(count))
            # The workers are there once their first batches are.
            for _ in range(3 * count + 1):
                next(iterator)
            start = time.perf_counter()
            images = sum(len(batch) for batch in islice(iterator, batches))
            rates[count].append(images / (time.perf_counter() - start))
            del iterator
    return {count: statistics.median(found) for count, found in rates.items()}


def coco_instances(count: int, side: int = COCO_SIDE) -> dict:
    """A valid COCO-detection JSON of `count` annotations, half polygons of 40 points, half run lengths of a disc."""
    turns = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    ring = np.round(side / 2 + side / 5 * np.stack([np.cos(turns), np.sin(turns)], axis=1), 1)
    polygon = [ring.ravel().tolist()]
    code = coco_mask.merge(coco_mask.frPyObjects(polygon, side, side))
    run_lengths = {"size": code["size"], "counts": code["counts"].decode()}
    box = [*ring.min(axis=0).tolist(), *np.ptp(ring, axis=0).tolist()]
    annotations = [
        {"id": k + 1, "image_id": k // 8, "category_id": k % 3, "iscrowd": 0, "bbox": box,
         "area": int(coco_mask.area(code)), "segmentation": run_lengths if k % 2 else polygon}
        for k in range(count)
    ]  # fmt: skip
    images = [{"id": k, "file_name": f"{k}.jpg", "height": side, "width": side} for k in range(-(-count // 8))]
    categories = [{"id": k, "name": f"class {k}"} for k in range(3)]
    return {"images": images, "annotations": annotations, "categories": categories}


def measure_checks(count: int = 100_000) -> dict[str, float]:
    """Processor seconds to parse a COCO-detection JSON of `count` annotations, and to check it."""
    text = json.dumps(coco_instances(count))
    start = time.process_time()
    data = json.loads(text)
    parsed = time.process_time()
    faults = list(check_instances_json(data, "instances.json"))
    end = time.process_time()
    if faults:
        raise ValueError(f"a valid JSON has the fault {faults[0]}")
    return {"parse": parsed - start, "check": end - parsed}


def loading_tables(loading: Mapping[str, float], workers: Mapping[int, float]) -> dict[str, Table]:
    """Results of `measure_loading`, by the processor, and of `measure_workers`, by the clock."""
    first = next(iter(workers.values()))
    rates = [[name, f"{rate:.1f}", f"{1000 / rate:.1f}"] for name, rate in loading.items()]
    rows = [[count, f"{rate:.1f}", f"{rate / first:.2f}"] for count, rate in workers.items()]
    return {
        "loading": Table(["data", "images/s and core", "ms an image"], rates),
        "workers": Table(["workers of the loader", "stimuli/s", "ratio"], rows),
    }
