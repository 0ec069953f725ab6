"""From command-line arguments to a checked config."""

import argparse
import logging
from collections.abc import Iterable
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.engine import default_argument_parser, default_setup
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from crbp_d2.checkpoint.loading import check_weights, has_checkpoint
from crbp_d2.config import require_keys
from crbp_d2.config_file import given_keys, load_config
from crbp_d2.data import (
    check_class_counts,
    check_dataset_available,
    check_ignored_label,
    check_image_channels,
    check_instances,
    check_same_classes,
    register_builtin,
)
from crbp_d2.evaluation import check_steps_to_evaluate
from crbp_d2.modeling.check import check_recurrence_config
from crbp_d2.modeling.compiled import check_compiled_part
from crbp_d2.predict.run_folder import CONFIG
from crbp_d2.utils.files import write_text

from . import registration
from .launch import check_processes, world_size
from .loaders import is_stream
from .settings import check_settings
from .tasks import inference_folder, task_of


def argument_parser() -> argparse.ArgumentParser:
    """detectron2's flags and ours."""
    parser = default_argument_parser()
    # A free port: two runs on one machine must not collide.
    parser.set_defaults(dist_url="auto")
    parser.add_argument(
        "--num-processes", type=int, default=0, metavar="N", help="processes on the CPU, without any GPU"
    )
    parser.add_argument(
        "--untrained", action="store_true", help="let --eval-only evaluate random weights where there are no others"
    )
    parser.add_argument("--dry-run", action="store_true", help="try two iterations: memory and time; keeps nothing")
    registration.add_arguments(parser)
    parser.epilog = f"{parser.epilog or ''}\nFlags come before the first KEY VALUE.\n"
    return parser


def setup(args: argparse.Namespace) -> CfgNode:
    """Config from `args` of argument_parser or detectron2's default_argument_parser; sets up output folder,
    logging and seeds.

    Raises:
        KeyError, ValueError: see checked_config.
    """
    cfg = checked_config(args)
    start_logging(cfg, args)
    return cfg


def start_logging(cfg: CfgNode, args: argparse.Namespace) -> None:
    """detectron2's default_setup: output folder, log, config.yaml and seeds.

    An evaluation leaves the config.yaml of a run as it is.
    """
    folder = cfg.OUTPUT_DIR if isinstance(cfg, CfgNode) else cfg.train.output_dir
    path = Path(folder, CONFIG)
    trained = path.read_text() if args.eval_only and comm.is_main_process() and path.is_file() else None
    default_setup(cfg, args)
    if trained is not None:
        write_text(path, trained)
    setup_logger(folder, distributed_rank=comm.get_rank(), name="crbp_d2")
    registration.log_choices(args)


def checked_config(args: argparse.Namespace) -> CfgNode:
    """Frozen config from `args`, for an available device. Nothing is written.

    Raises:
        KeyError: an unknown key in a config file, by its full name.
        ValueError: a missing config file, invalid YAML, an unknown key on the command line, an invalid value, or flags
            that this machine does not support.
    """
    check_processes(args)
    cfg = merged_config(args)
    wanted = cfg.MODEL.DEVICE
    if getattr(args, "num_processes", 0) or str(wanted).startswith("cuda") and not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"
        if wanted != "cpu":
            args.choices.append(f"MODEL.DEVICE is 'cpu', not {wanted!r}: no CUDA device is available, or wanted")
    cfg.freeze()
    check_config(cfg, train=not args.eval_only, processes=world_size(args), given=given_keys(args.config_file, args.opts))
    return cfg


def merged_config(args: argparse.Namespace) -> CfgNode:
    """Config from `args`, as written there; registers the data sets that they name.

    Raises:
        KeyError, ValueError: see checked_config.
    """
    args.choices = []
    # First, so that a data set of the command line cannot take one of their names.
    register_builtin()
    cfg = load_config(args.config_file, args.opts)
    registration.register_from(args)
    registration.choose_settings(args, cfg)
    return cfg


def check(cfg: CfgNode, *, train: bool = True, resume: bool = False) -> None:
    """Check a config and its inputs; see check_config and check_inputs."""
    check_config(cfg, train=train)
    check_inputs(cfg, train=train, resume=resume)


def check_config(
    cfg: CfgNode, *, train: bool = True, processes: int | None = None, given: Iterable[str] = ()
) -> None:
    """Check settings, without looking at data or weights.

    Args:
        processes: number that will share a batch; None: those that run.
        given: keys that the user wrote, see check_recurrence_config.

    Raises:
        SettingError: names a key, its value and the allowed values.
        ContradictionError: names keys that contradict each other.
    """
    require_keys(cfg)
    check_settings(cfg, train=train, processes=processes)
    check_compiled_part(cfg)
    check_recurrence_config(cfg, given)


def check_inputs(cfg: CfgNode, *, train: bool = True, resume: bool = False) -> None:
    """Check that data and weights exist and fit the config.

    Raises:
        FileNotFoundError: one sentence: the missing file, the searched place, what runs without.
        KeyError: an unknown data set.
        ValueError: class counts or image channels that do not fit a data set, data sets of different kinds, the name
            of one that leads out of OUTPUT_DIR, step counts to evaluate of a model that has none.
    """
    register_builtin()
    check_steps_to_evaluate(cfg)
    parts = ("TRAIN", "TEST") if train else ("TEST",)
    names = [name for part in parts for name in cfg.DATASETS[part]]
    for part in parts:
        for name in cfg.DATASETS[part]:
            check_dataset_available(name, f"DATASETS.{part}: ")
    task_of(cfg)
    for name in names:
        check_instances(cfg, name)
        check_class_counts(cfg, name)
        check_ignored_label(cfg, name)
        check_image_channels(cfg, name)
    check_same_classes(names)
    for name in cfg.DATASETS.TEST:
        inference_folder(cfg, name)
        if is_stream(name):
            raise ValueError(f"DATASETS.TEST names {name}, which has no end; evaluate on the files of a _val set")
    if any(is_stream(name) for name in cfg.DATASETS.TRAIN) and len(cfg.DATASETS.TRAIN) > 1:
        raise ValueError(f"DATASETS.TRAIN is {cfg.DATASETS.TRAIN}; a stream has no end, so it must be the only one")
    if cfg.MODEL.WEIGHTS and not (resume and has_checkpoint(cfg.OUTPUT_DIR)):
        check_weights(cfg.MODEL.WEIGHTS)


def check_evaluation(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Check that `--eval-only` has data, and trained weights unless `--untrained` is given.

    Raises:
        ValueError: names the key.
    """
    if not cfg.DATASETS.TEST:
        raise ValueError("DATASETS.TEST is (), so --eval-only has nothing to evaluate")
    if args.untrained or cfg.MODEL.WEIGHTS or args.resume and has_checkpoint(cfg.OUTPUT_DIR):
        return
    note = f", and OUTPUT_DIR {cfg.OUTPUT_DIR} has no checkpoint for --resume" if args.resume else ""
    raise ValueError(
        f"MODEL.WEIGHTS is ''{note}, so --eval-only would evaluate random weights: name a file, or add --untrained"
    )
