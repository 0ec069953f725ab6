"""A trial of a training: two iterations and one evaluated image; keeps nothing."""

import argparse
import datetime
import logging
import resource
import sys
import tempfile
import time

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from detectron2.utils.logger import setup_logger

from crbp_d2.data import check_instance_dataset, check_panoptic_dataset
from crbp_d2.data.panoptic.faults import DatasetError

from .registration import class_counts, log_choices
from .seeding import STEP, seed_generators
from .trainer import Trainer

ITERATIONS = 2


def dry_run(cfg: CfgNode, args: argparse.Namespace) -> dict[str, float]:
    """Run two iterations of a checked config and predict on one image; logs seconds, peak memory and the time left.

    With `--resume` both begin where the run would resume. Returns {"seconds", "peak_memory", "time_left"}: of the
    second iteration, in bytes (of the GPU, else of the process), and of the remaining iterations in seconds.

    Raises:
        FileNotFoundError, ValueError, FloatingPointError: as training would.
    """
    logger = setup_logger(distributed_rank=comm.get_rank(), name="crbp_d2")
    log_choices(args)
    if comm.is_main_process():
        _check_data(cfg, args)
    output = cfg.OUTPUT_DIR
    cfg = cfg.clone()
    cfg.defrost()
    with tempfile.TemporaryDirectory() as folder:
        cfg.OUTPUT_DIR = folder
        cfg.freeze()
        trainer = Trainer(cfg, resume=args.resume, checked=True)
        trainer.checkpointer.save_dir = output
        trainer.resume_or_load(resume=args.resume)
        first = trainer.start_iter
        on_gpu = cfg.MODEL.DEVICE.startswith("cuda")
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
        with EventStorage(0) as trainer.storage:
            trainer.model.train()
            for trainer.iter in range(first, first + ITERATIONS):
                start = time.perf_counter()
                seed_generators(trainer.seed, STEP, trainer.iter, comm.get_rank())
                trainer.run_step()
                seconds = time.perf_counter() - start
            losses = {name: scalar[0] for name, scalar in trainer.storage.latest().items() if "loss" in name}
        for name in cfg.DATASETS.TEST[:1]:
            trainer.model.eval()
            with torch.no_grad():
                trainer.model(next(iter(trainer.build_test_loader(cfg, name))))
    memory = torch.cuda.max_memory_allocated() if on_gpu else _process_peak()
    # As SOLVER.REFERENCE_WORLD_SIZE scales it.
    count = max(trainer.max_iter - first, 0)
    left = seconds * count
    logger.info(
        "Dry run: config, data (%s) and weights are fine; %d iterations ran. losses: %s",
        _described(cfg), ITERATIONS, ", ".join(f"{name} {value:.3g}" for name, value in losses.items()),
    )  # fmt: skip
    logger.info(
        "%.2f s an iteration, peak memory %.2f GiB (%s), %s for %d iterations to SOLVER.MAX_ITER; nothing was kept",
        seconds, memory / 2**30, "GPU" if on_gpu else "process", datetime.timedelta(seconds=int(left)), count,
    )  # fmt: skip
    return {"seconds": seconds, "peak_memory": memory, "time_left": left}


def _check_data(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Check every file of the data sets that the command line registers; others are checked when they are read.

    Raises:
        DatasetError: lists the harmful faults.
    """
    sets = [(check_panoptic_dataset, row) for row in getattr(args, "register", ())]
    sets += [(check_instance_dataset, row) for row in getattr(args, "register_coco", ())]
    for check, (name, *paths) in sets:
        faults = check(*paths, cfg=cfg, workers=max(cfg.DATALOADER.NUM_WORKERS, 1))
        harmful = [fault for fault in faults if not fault.harmless]
        if harmful:
            raise DatasetError(harmful)
        logging.getLogger(__name__).info("%s: every file is fine, %d notes", name, len(faults))


def _process_peak() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _described(cfg: CfgNode) -> str:
    parts = []
    for name in dict.fromkeys((*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)):
        things, stuff = class_counts(name)
        parts.append(f"{name}: {things} thing and {stuff} stuff classes")
    return ", ".join(parts)
