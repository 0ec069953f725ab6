"""What the keys of a LazyConfig may be, checked before anything is built."""

import argparse
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from crbp_d2.checkpoint.loading import Checkpointer, check_weights
from crbp_d2.config_file import leaves
from crbp_d2.data import check_dataset_available

from .launch import world_size
from .setting_rules import COMMON, SOME_BOOL, SOME_TEXT, TRAINING, Rule
from .settings import check_device, holds, is_finite

# Those that each LazyConfig needs, by the rules of the YAML's.
NEEDED: dict[str, Rule] = {
    "train.output_dir": COMMON["OUTPUT_DIR"],
    "train.max_iter": TRAINING["SOLVER.MAX_ITER"],
    "train.checkpointer.period": TRAINING["SOLVER.CHECKPOINT_PERIOD"],
    "train.eval_period": TRAINING["TEST.EVAL_PERIOD"],
    "train.log_period": TRAINING["SOLVER.CHECKPOINT_PERIOD"],
    "train.device": SOME_TEXT,
    "train.init_checkpoint": SOME_TEXT,
    "train.amp.enabled": SOME_BOOL,
}
# Those that not every loader and optimizer has.
POSSIBLE: dict[str, Rule] = {
    "train.seed": COMMON["SEED"],
    "dataloader.train.total_batch_size": TRAINING["SOLVER.IMS_PER_BATCH"],
    "dataloader.train.num_workers": COMMON["DATALOADER.NUM_WORKERS"],
    "dataloader.test.num_workers": COMMON["DATALOADER.NUM_WORKERS"],
    "optimizer.lr": TRAINING["SOLVER.BASE_LR"],
    "optimizer.momentum": TRAINING["SOLVER.MOMENTUM"],
    "optimizer.weight_decay": TRAINING["SOLVER.WEIGHT_DECAY"],
}
MISSING = object()


def check_lazy(cfg: DictConfig, args: argparse.Namespace) -> None:
    """Check keys, data sets and weights of a LazyConfig.

    Raises:
        ValueError: names a key, its value and what is allowed, or the file.
        FileNotFoundError, KeyError: see check_dataset_available and check_weights.
    """
    for part in ("model", "dataloader", "optimizer", "lr_multiplier", "train"):
        if not isinstance(cfg[part], DictConfig):
            raise ValueError(f"{part} is {cfg[part]!r}; it has keys and values of its own")
    for key, (rule, allowed) in {**NEEDED, **POSSIBLE}.items():
        value = _value(cfg, key)
        if value is MISSING and key not in NEEDED:
            continue
        if value is MISSING or not holds(rule, value):
            found = "missing" if value is MISSING else repr(value)
            raise ValueError(f"{key} is {found}; allowed: {allowed}")
    content: Any = OmegaConf.to_container(cfg, resolve=False)
    for key, value in leaves(content):
        if not is_finite(value):
            raise ValueError(f"{key} is {value!r}; allowed: finite numbers")
    check_device("train.device", cfg.train.device)
    size, processes = _value(cfg, "dataloader.train.total_batch_size"), world_size(args)
    if size is not MISSING and size % processes:
        raise ValueError(
            f"dataloader.train.total_batch_size is {size}, which {processes} processes cannot share evenly"
        )
    for part in ("test",) if args.eval_only else ("train", "test"):
        key = f"dataloader.{part}.dataset.names"
        names = _value(cfg, key)
        for name in () if names is MISSING else (names,) if isinstance(names, str) else names:
            check_dataset_available(name, f"{key}: ")
    _check_weights(cfg, args)


def _check_weights(cfg: DictConfig, args: argparse.Namespace) -> None:
    resumes = args.resume and Checkpointer(torch.nn.Module(), cfg.train.output_dir).has_checkpoint()
    if resumes:
        return
    if cfg.train.init_checkpoint:
        check_weights(cfg.train.init_checkpoint, "train.init_checkpoint")
    elif args.eval_only and not getattr(args, "untrained", False):
        raise ValueError(
            "train.init_checkpoint is '', so --eval-only would evaluate random weights: name a file, or add "
            "--untrained if that is what you want"
        )


def _value(cfg: DictConfig, key: str) -> Any:
    try:
        return OmegaConf.select(cfg, key, default=MISSING, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ValueError(f"{key}: {' '.join(str(error).split())}") from error
