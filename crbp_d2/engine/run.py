"""A training or an evaluation from its command line to its exit status."""

import argparse
import logging
import sys
from pathlib import Path
from typing import NoReturn

from detectron2.config import CfgNode
from detectron2.evaluation import verify_results
from detectron2.utils import comm
from torch import multiprocessing

from crbp_d2.checkpoint.loading import Checkpointer
from crbp_d2.data.panoptic.faults import DatasetError
from crbp_d2.evaluation.results import UnknownFigure

from .dry_run import dry_run
from .launch import launch
from .lazy import is_lazy, lazy_config, run_lazy
from .loaders import UnusableRecord
from .lock import FolderTaken, RunLock
from .settings import check_evaluation
from .setup import argument_parser, check_inputs, checked_config, has_checkpoint, start_logging
from .trainer import Trainer

# What a user can put right, said in one line. All else is a fault of the program and keeps its traceback.
REPORTED = (FolderTaken, FloatingPointError, OSError, KeyError, ValueError)
# Of these, what says all when it comes up in training: detectron2 would log it with a traceback.
WITHOUT_TRACEBACK = (FloatingPointError, OSError, UnusableRecord, DatasetError, UnknownFigure)


def main(arguments: list[str] | None = None) -> dict | None:
    """Train or evaluate as the command line says; the results where there is one process.

    Raises:
        SystemExit: with one line on what is wrong with settings, files or data, or the status of a process that failed.
    """
    args = argument_parser().parse_args(arguments)
    try:
        # Before any process is started.
        lazy_config(args) if is_lazy(args.config_file) else _checked(args)
    except REPORTED as error:
        _exit(error)
    try:
        return launch(run, args)
    except multiprocessing.ProcessExitedException as error:
        # It has said why.
        sys.exit(error.exit_code)


def _shorten(record: logging.LogRecord) -> bool:
    """A filter of a log, which leaves no traceback of a fault that its line explains."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, WITHOUT_TRACEBACK):
        record.msg, record.args, record.exc_info = "Training stops: %s", (" ".join(str(error).split()),), None
    return True


def run(args: argparse.Namespace) -> dict:
    """What each process does."""
    logging.getLogger("detectron2.engine.train_loop").addFilter(_shorten)
    try:
        if is_lazy(args.config_file):
            return run_lazy(args)
        cfg = _checked(args)
        if args.dry_run:
            return dry_run(cfg, args)
        with RunLock(cfg.OUTPUT_DIR) as lock:
            start_logging(cfg, args)
            lock.log_notes()
            results = _evaluate(cfg, args) if args.eval_only else _train(cfg, args)
            if comm.is_main_process():
                verify_results(cfg, results or {})
            return results
    except REPORTED as error:
        _exit(error)


def _checked(args: argparse.Namespace) -> CfgNode:
    if getattr(args, "dry_run", False) and args.eval_only:
        raise ValueError("--dry-run tries a training out, --eval-only trains nothing: give one of them")
    cfg = checked_config(args)
    if args.eval_only:
        check_evaluation(cfg, args, args.resume and has_checkpoint(cfg))
    check_inputs(cfg, train=not args.eval_only, resume=args.resume)
    return cfg


def _train(cfg: CfgNode, args: argparse.Namespace) -> dict:
    trainer = Trainer(cfg, resume=args.resume)
    trainer.resume_or_load(resume=args.resume)
    return trainer.train()


def _evaluate(cfg: CfgNode, args: argparse.Namespace) -> dict:
    model = Trainer.build_model(cfg)
    Checkpointer(model, cfg.OUTPUT_DIR, complete=True).resume_or_load(cfg.MODEL.WEIGHTS, resume=args.resume)
    return Trainer.test(cfg, model)


def _exit(error: Exception) -> NoReturn:
    """End with one line; what holds for all processes is said by the main one."""
    rank = comm.get_rank()
    if rank and isinstance(error, FolderTaken):
        sys.exit(1)
    text = error.args[0] if isinstance(error, KeyError) else error
    place = f" (process {rank})" if rank else ""
    sys.exit(f"{Path(sys.argv[0]).name}{place}: {' '.join(str(text).split())}")
