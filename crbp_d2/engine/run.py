"""A training or an evaluation from its command line to its exit status."""

import argparse
import logging
import sys
from typing import NoReturn

from detectron2.config import CfgNode
from detectron2.evaluation import verify_results
from detectron2.utils import comm
from torch import multiprocessing

from crbp_d2.checkpoint.loading import Checkpointer
from crbp_d2.data.panoptic.faults import DatasetError
from crbp_d2.evaluation.results import UnknownFigure
from crbp_d2.utils.errors import exit_with

from .dry_run import dry_run
from .launch import launch
from .lazy import check_lazy_config, is_lazy, run_lazy
from .loaders import UnusableRecord
from .lock import FolderTaken, RunLock
from .registration import register_from
from .setup import argument_parser, check_evaluation, check_inputs, checked_config, start_logging
from .trainer import Trainer

# Errors that a user can mend, reported in one line. All others are faults of the program and keep their traceback.
REPORTED = (FolderTaken, FloatingPointError, OSError, KeyError, ValueError)
# Errors in training that detectron2 would log with a traceback; their line says enough.
WITHOUT_TRACEBACK = (FloatingPointError, OSError, UnusableRecord, DatasetError, UnknownFigure)


def main(arguments: list[str] | None = None) -> dict | None:
    """Train or evaluate by the command line; the results where one process runs.

    Raises:
        SystemExit: with one line on invalid settings, files or data, or the status of a process that failed.
    """
    args = argument_parser().parse_args(arguments)
    try:
        # Once, before any process starts.
        if is_lazy(args.config_file):
            check_lazy_config(args)
            return launch(_reporting, args, run_lazy)
        return launch(_reporting, args, run, _checked(args))
    except REPORTED as error:
        _exit(error)
    except multiprocessing.ProcessExitedException as error:
        # It has reported why.
        sys.exit(error.exit_code)


def _checked(args: argparse.Namespace) -> CfgNode:
    if args.dry_run and args.eval_only:
        raise ValueError("--dry-run and --eval-only are mutually exclusive: give one of them")
    cfg = checked_config(args)
    if args.eval_only:
        check_evaluation(cfg, args)
    check_inputs(cfg, train=not args.eval_only, resume=args.resume)
    return cfg


def _reporting(args: argparse.Namespace, task, *others) -> dict:
    """`task(args, *others)` in one process, whose errors end it with one line."""
    logging.getLogger("detectron2.engine.train_loop").addFilter(_shorten)
    try:
        return task(args, *others)
    except REPORTED as error:
        _exit(error)


def run(args: argparse.Namespace, cfg: CfgNode) -> dict:
    """Train or evaluate in one process by a checked config."""
    register_from(args)
    if args.dry_run:
        return dry_run(cfg, args)
    with RunLock(cfg.OUTPUT_DIR) as lock:
        start_logging(cfg, args)
        lock.log_notes()
        results = _evaluate(cfg, args) if args.eval_only else _train(cfg, args)
        if comm.is_main_process():
            verify_results(cfg, results or {})
        return results


def _train(cfg: CfgNode, args: argparse.Namespace) -> dict:
    trainer = Trainer(cfg, resume=args.resume, checked=True)
    trainer.resume_or_load(resume=args.resume)
    return trainer.train()


def _evaluate(cfg: CfgNode, args: argparse.Namespace) -> dict:
    model = Trainer.build_model(cfg)
    Checkpointer(model, cfg.OUTPUT_DIR, complete=True).resume_or_load(cfg.MODEL.WEIGHTS, resume=args.resume)
    return Trainer.test(cfg, model)


def _shorten(record: logging.LogRecord) -> bool:
    """A log filter that drops the traceback of errors in WITHOUT_TRACEBACK."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, WITHOUT_TRACEBACK):
        record.msg, record.args, record.exc_info = "Training stops: %s", (" ".join(str(error).split()),), None
    return True


def _exit(error: Exception) -> NoReturn:
    """End with one line; the main process reports what holds for all of them."""
    rank = comm.get_rank()
    if rank and isinstance(error, FolderTaken):
        sys.exit(1)
    exit_with(error, f" (process {rank})" if rank else "")
