"""From command-line arguments to a checked config."""

import argparse
import logging

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog
from detectron2.engine import default_setup
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import setup_logger

from crbp_d2.config import add_crbp_config
from crbp_d2.data import check_class_counts, check_dataset_available, check_image_channels, register_toy_panoptic
from crbp_d2.evaluation import check_steps_to_evaluate
from crbp_d2.modeling import check_recurrence_config

from .loaders import is_stream
from .optimizer import check_optimizer
from .tasks import task_of


def setup(args: argparse.Namespace) -> CfgNode:
    """Config from `args` of detectron2's default_argument_parser; sets up output folder, logging and seeds.

    Raises:
        KeyError: an unknown key in a config file, by its full name.
        ValueError: no such config file; an unknown key on the command line; a value of MODEL.RECURRENCE that is
            not allowed.
    """
    cfg = merged_config(args)
    no_cuda = torch.device(cfg.MODEL.DEVICE).type == "cuda" and not torch.cuda.is_available()
    if no_cuda:
        cfg.MODEL.DEVICE = "cpu"
    cfg.freeze()
    check_recurrence_config(cfg)
    if "toy_panoptic_train" not in DatasetCatalog.list():
        register_toy_panoptic()
    default_setup(cfg, args)
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="crbp_d2")
    if no_cuda:
        logging.getLogger(__name__).warning("No CUDA device is available: running on the CPU.")
    return cfg


def merged_config(args: argparse.Namespace) -> CfgNode:
    """Config from `args`, as it is written there.

    Raises:
        KeyError, ValueError: see `setup`.
    """
    cfg = get_cfg()
    add_crbp_config(cfg)
    try:
        cfg.merge_from_file(args.config_file)
        cfg.merge_from_list(args.opts)
    except AssertionError as error:  # detectron2: no such file; yacs: an unknown key, or one without a value
        raise ValueError(f"{error} (--config-file {args.config_file} {' '.join(map(str, args.opts))})") from error
    return cfg


def check_inputs(cfg: CfgNode, *, train: bool = True, resume: bool = False) -> None:
    """Check, before anything is built, that data and weights are there and fit the config.

    Raises:
        FileNotFoundError: one sentence: what is missing, where it was looked for, what runs without.
        KeyError: an unknown data set.
        ValueError: class counts or image channels that do not fit a data set, data sets that do not go together,
            an unknown optimizer, step counts to evaluate of a model that has none.
    """
    check_optimizer(cfg)
    check_steps_to_evaluate(cfg)
    names = (*(cfg.DATASETS.TRAIN if train else ()), *cfg.DATASETS.TEST)
    for name in names:
        check_dataset_available(name)
    task_of(cfg)
    for name in names:
        check_class_counts(cfg, name)
        check_image_channels(cfg, name)
    if streams := [name for name in cfg.DATASETS.TEST if is_stream(name)]:
        raise ValueError(f"DATASETS.TEST names {streams[0]}, which has no end; evaluate on the files of a _val set")
    if any(is_stream(name) for name in cfg.DATASETS.TRAIN) and len(cfg.DATASETS.TRAIN) > 1:
        raise ValueError(f"DATASETS.TRAIN is {cfg.DATASETS.TRAIN}; a stream has no end, so it must be the only one")
    resumes = resume and DetectionCheckpointer(torch.nn.Module(), cfg.OUTPUT_DIR).has_checkpoint()
    if cfg.MODEL.WEIGHTS and not resumes:
        check_weights(cfg.MODEL.WEIGHTS)


def check_weights(path: str) -> None:
    """Fetch `path` (a file, URL or detectron2:// name) into the local cache if it is not there yet.

    Raises:
        FileNotFoundError: it cannot be had.
    """
    try:
        found = PathManager.isfile(PathManager.get_local_path(path))
        reason = "no such file"
    except (OSError, RuntimeError, ValueError) as error:
        found, reason = False, " ".join(str(error).split())
    if not found:
        raise FileNotFoundError(
            f"The weights MODEL.WEIGHTS = {path!r} are missing ({reason}); `MODEL.WEIGHTS ''` trains from random "
            "initialisation and `make demo` runs without any download."
        )
