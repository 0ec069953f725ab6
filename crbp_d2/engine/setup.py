"""From command-line arguments to a checked config."""

import argparse
import logging

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.engine import default_argument_parser, default_setup
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from crbp_d2.checkpoint.loading import Checkpointer
from crbp_d2.checkpoint.loading import check_weights
from crbp_d2.config import add_crbp_config
from crbp_d2.config_file import merge_config_file, merge_options
from crbp_d2.data import (check_class_counts, check_dataset_available, check_ignored_label, check_image_channels, check_instances, check_same_classes, register_builtin)
from crbp_d2.evaluation import check_steps_to_evaluate
from crbp_d2.modeling.check import check_model
from crbp_d2.modeling.compiled import check_compiled_part

from . import registration
from .launch import check_processes, world_size
from .loaders import is_stream
from .settings import check_settings
from .tasks import task_of


def argument_parser() -> argparse.ArgumentParser:
    """detectron2's flags and ours."""
    parser = default_argument_parser()
    # A free port: two runs on one machine must not meet.
    parser.set_defaults(dist_url="auto")
    parser.add_argument(
        "--num-processes", type=int, default=0, metavar="N", help="processes on the CPU, without any GPU"
    )
    parser.add_argument(
        "--untrained", action="store_true", help="let --eval-only evaluate random weights where there are no others"
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="try two iterations: memory, time for all; keeps nothing",
    )
    registration.add_arguments(parser)
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
    """detectron2's default_setup: output folder, log, config.yaml and seeds."""
    default_setup(cfg, args)
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="crbp_d2")
    registration.log_choices(args)
    if cfg.MODEL.DEVICE != merged_config(args).MODEL.DEVICE:
        logging.getLogger(__name__).warning("No CUDA device is available: running on the CPU.")


def checked_config(args: argparse.Namespace) -> CfgNode:
    """Config from `args`, frozen, for a device that is there. Nothing is written or built.

    Raises:
        KeyError: an unknown key in a config file, by its full name.
        ValueError: no such config file, or one that is no plain YAML; an unknown key on the command line; a value
            that is not allowed, or flags that the machine cannot follow.
    """
    check_processes(args)
    cfg = merged_config(args)
    if getattr(args, "num_processes", 0) or not _is_available(cfg.MODEL.DEVICE):
        cfg.MODEL.DEVICE = "cpu"
    cfg.freeze()
    check_settings(cfg, train=not args.eval_only, processes=world_size(args))
    check_compiled_part(cfg)
    check_model(cfg, lambda: merged_config(argparse.Namespace(**{**vars(args), "opts": []})))
    return cfg


def _is_available(device: str) -> bool:
    return not device.startswith("cuda") or torch.cuda.is_available()


def merged_config(args: argparse.Namespace) -> CfgNode:
    """Config from `args`, as it is written there.

    Raises:
        KeyError, ValueError: see checked_config.
    """
    # First, so that a data set of the command line cannot take one of their names.
    register_builtin()
    cfg = get_cfg()
    add_crbp_config(cfg)
    merge_config_file(cfg, args.config_file)
    merge_options(cfg, args.opts)
    registration.register_from(args, cfg)
    return cfg


def check_inputs(cfg: CfgNode, *, train: bool = True, resume: bool = False) -> None:
    """Check, before anything is built, that data and weights are there and fit the config.

    Raises:
        FileNotFoundError: one sentence: what is missing, where it was looked for, what runs without.
        KeyError: an unknown data set.
        ValueError: class counts or image channels that do not fit a data set, data sets that do not go together,
            step counts to evaluate of a model that has none, another setting that is not allowed.
    """
    register_builtin()
    check_settings(cfg, train=train)
    check_steps_to_evaluate(cfg)
    names = (*(cfg.DATASETS.TRAIN if train else ()), *cfg.DATASETS.TEST)
    for part in ("TRAIN", "TEST") if train else ("TEST",):
        for name in cfg.DATASETS[part]:
            check_dataset_available(name, f"DATASETS.{part}: ")
    task_of(cfg)
    for name in names:
        check_instances(cfg, name)
        check_class_counts(cfg, name)
        check_ignored_label(cfg, name)
        check_image_channels(cfg, name)
    check_same_classes(names)
    if streams := [name for name in cfg.DATASETS.TEST if is_stream(name)]:
        raise ValueError(f"DATASETS.TEST names {streams[0]}, which has no end; evaluate on the files of a _val set")
    if any(is_stream(name) for name in cfg.DATASETS.TRAIN) and len(cfg.DATASETS.TRAIN) > 1:
        raise ValueError(f"DATASETS.TRAIN is {cfg.DATASETS.TRAIN}; a stream has no end, so it must be the only one")
    resumes = resume and has_checkpoint(cfg)
    if cfg.MODEL.WEIGHTS and not resumes:
        check_weights(cfg.MODEL.WEIGHTS)


def has_checkpoint(cfg: CfgNode) -> bool:
    """Whether OUTPUT_DIR holds a checkpoint to resume from, damaged or not."""
    return Checkpointer(torch.nn.Module(), cfg.OUTPUT_DIR).has_checkpoint()
