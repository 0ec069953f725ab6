"""Training and evaluation by a LazyConfig, a config file in Python, in detectron2's own loop with our finite check.

Its parts are those of detectron2's: `model`, `dataloader`, `optimizer`, `lr_multiplier` and `train`.
"""

import argparse
import os
from typing import Any

import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.engine import default_writers, hooks
from detectron2.evaluation import inference_on_dataset, print_csv_format
from detectron2.utils import comm
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn

from crbp_d2.checkpoint.loading import Checkpointer, check_weights, has_checkpoint
from crbp_d2.config_file import leaves
from crbp_d2.data import check_dataset_available, register_builtin
from crbp_d2.evaluation import write_results
from crbp_d2.predict.run_folder import write_metadata
from crbp_d2.utils.errors import SettingError, did_you_mean, full_keys
from crbp_d2.utils.files import inside

from .launch import check_processes, world_size
from .lock import RunLock
from .loop import PartwiseTrainer
from .seeding import INITIAL_WEIGHTS, run_seed, seed_draws, seed_generators
from .settings import BOOL, COMMON, SEED, TEXT, TRAINING, Rule, check_device, check_finite, check_values
from .setup import start_logging
from .trainer import distribute

PARTS = ("model", "dataloader", "optimizer", "lr_multiplier", "train")
RULES: dict[str, Rule] = {
    "train.output_dir": COMMON["OUTPUT_DIR"],
    "train.max_iter": TRAINING["SOLVER.MAX_ITER"],
    "train.checkpointer.period": TRAINING["SOLVER.CHECKPOINT_PERIOD"],
    "train.eval_period": TRAINING["TEST.EVAL_PERIOD"],
    "train.log_period": TRAINING["SOLVER.CHECKPOINT_PERIOD"],
    "train.device": TEXT,
    "train.init_checkpoint": TEXT,
    "train.amp.enabled": BOOL,
}
# Keys that not every loader and optimizer has.
OPTIONAL: dict[str, Rule] = {
    "train.seed": SEED,
    "dataloader.train.total_batch_size": TRAINING["SOLVER.IMS_PER_BATCH"],
    "dataloader.train.num_workers": COMMON["DATALOADER.NUM_WORKERS"],
    "dataloader.test.num_workers": COMMON["DATALOADER.NUM_WORKERS"],
    "optimizer.lr": TRAINING["SOLVER.BASE_LR"],
    "optimizer.momentum": TRAINING["SOLVER.MOMENTUM"],
    "optimizer.weight_decay": TRAINING["SOLVER.WEIGHT_DECAY"],
}


def is_lazy(path: str) -> bool:
    """Whether a config file is written in Python."""
    return path.endswith(".py")


def lazy_config(args: argparse.Namespace) -> DictConfig:
    """The config of `args`, with its "key=value" options, for an available device.

    Raises:
        ValueError: a missing file, part or key, an option of another form, a flag for YAML configs only.
    """
    path = args.config_file
    if not os.path.isfile(path):
        raise ValueError(f"there is no config file {path!r} (--config-file)")
    if unknown := [flag for flag in ("dry_run", "register", "register_coco") if getattr(args, flag, None)]:
        flag = "--" + unknown[0].replace("_", "-")
        raise ValueError(f"{flag} is for YAML configs; {path} is a LazyConfig, which names its data")
    if wrong := [option for option in args.opts if not all(option.lstrip("+").partition("=")[:2])]:
        raise ValueError(f"{path} is a LazyConfig, whose options are key=value, not {wrong[0]!r}")
    register_builtin()
    try:
        cfg = LazyConfig.load(path)
    except (SyntaxError, ImportError, UnicodeDecodeError) as error:
        cause = f" ({error.__cause__})" if error.__cause__ else ""
        raise ValueError(f"{path}: {error}{cause}") from error
    if missing := [part for part in PARTS if part not in cfg]:
        raise ValueError(f"{path} has no {', '.join(missing)}; a LazyConfig to train has {', '.join(PARTS)}")
    for option in args.opts:
        key = option.split("=", 1)[0].lstrip("+")
        if not option.startswith("+") and OmegaConf.select(cfg, key, default=None) is None:
            content = OmegaConf.to_container(cfg, resolve=False)
            known = full_keys(content) if isinstance(content, dict) else ()
            raise ValueError(f"{path} has no key {key!r} (+{option} adds one){did_you_mean(key, known)}")
    try:
        cfg = LazyConfig.apply_overrides(cfg, args.opts)
    except (OmegaConfBaseException, ValueError) as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from error
    device = OmegaConf.select(cfg, "train.device")
    if getattr(args, "num_processes", 0) or str(device).startswith("cuda") and not torch.cuda.is_available():
        cfg.train.device = "cpu"
    return cfg


def checked_lazy_config(args: argparse.Namespace) -> DictConfig:
    """`lazy_config`, with its keys, data sets and weights checked by the rules of YAML configs.

    Raises:
        ValueError: names a key, its value and the allowed values, or the file.
        FileNotFoundError, KeyError: see check_dataset_available and check_weights.
    """
    check_processes(args)
    cfg = lazy_config(args)
    for part in PARTS:
        if not isinstance(cfg[part], DictConfig):
            raise SettingError(part, cfg[part], "keys and values")
    check_values(lambda key: _value(cfg, key), {**RULES, **{k: r for k, r in OPTIONAL.items() if _has(cfg, k)}})
    content: Any = OmegaConf.to_container(cfg, resolve=False)
    check_finite(leaves(content))
    check_device("train.device", cfg.train.device)
    if cfg.train.amp.enabled and cfg.train.device == "cpu":
        raise SettingError("train.amp.enabled", True, "False where train.device is 'cpu'")
    size, processes = _value(cfg, "dataloader.train.total_batch_size"), world_size(args)
    if size and size % processes:
        raise SettingError("dataloader.train.total_batch_size", size, f"multiples of {processes} processes")
    for part in ("test",) if args.eval_only else ("train", "test"):
        key = f"dataloader.{part}.dataset.names"
        for name in _names(_value(cfg, key)):
            check_dataset_available(name, f"{key}: ")
    if args.resume and has_checkpoint(cfg.train.output_dir):
        return cfg
    if cfg.train.init_checkpoint:
        check_weights(cfg.train.init_checkpoint, "train.init_checkpoint")
    elif args.eval_only and not args.untrained:
        raise ValueError(
            "train.init_checkpoint is '', so --eval-only would evaluate random weights: name a file, or add --untrained"
        )
    return cfg


def _value(cfg: DictConfig, key: str) -> Any:
    try:
        return OmegaConf.select(cfg, key, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ValueError(f"{key}: {' '.join(str(error).split())}") from error


def _has(cfg: DictConfig, key: str) -> bool:
    section, _, name = key.rpartition(".")
    node = _value(cfg, section)
    return isinstance(node, DictConfig) and name in node


def _names(names: Any) -> list[str]:
    return [names] if isinstance(names, str) else list(names or ())


def run_lazy(args: argparse.Namespace) -> dict:
    """Train or evaluate in one process by the checked config of `args`; results of the evaluation."""
    cfg = lazy_config(args)
    with RunLock(cfg.train.output_dir) as lock:
        start_logging(cfg, args)
        lock.log_notes()
        seed = run_seed(cfg.train.get("seed", -1))
        seed_generators(seed, INITIAL_WEIGHTS)
        model = instantiate(cfg.model).to(cfg.train.device)
        seed_draws(model, seed)
        if not args.eval_only:
            return train(cfg, model, resume=args.resume)
        Checkpointer(model, cfg.train.output_dir, complete=True).resume_or_load(
            cfg.train.init_checkpoint, resume=args.resume
        )
        return evaluate(cfg, distribute(model))


def train(cfg: DictConfig, model: nn.Module, *, resume: bool = False) -> dict:
    """Train from the initial checkpoint of a config, or with `resume` from the newest one; the last results."""
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    loader = instantiate(cfg.dataloader.train)
    model = distribute(model)
    trainer = PartwiseTrainer(model, loader, optimizer, dtype=torch.float16 if cfg.train.amp.enabled else None)
    checkpointer = Checkpointer(model, cfg.train.output_dir, trainer=trainer)
    results: dict = {}

    def evaluate_now() -> dict:
        results.update(evaluate(cfg, model))
        return results

    main = comm.is_main_process()
    writers = default_writers(cfg.train.output_dir, cfg.train.max_iter) if main else []
    trainer.register_hooks(
        [
            hooks.IterationTimer(),
            hooks.LRScheduler(scheduler=instantiate(cfg.lr_multiplier)),
            hooks.PeriodicCheckpointer(checkpointer, **cfg.train.checkpointer) if main else None,
            hooks.EvalHook(cfg.train.eval_period, evaluate_now),
            hooks.PeriodicWriter(writers, cfg.train.log_period) if main else None,
        ]
    )
    resumes = resume and checkpointer.has_checkpoint()
    checkpointer.resume_or_load(cfg.train.init_checkpoint, resume=resume)
    if main and (names := _names(_value(cfg, "dataloader.train.dataset.names"))):
        write_metadata(names[0], cfg.train.output_dir)
    trainer.train(trainer.iter + 1 if resumes else 0, cfg.train.max_iter)
    return results


def evaluate(cfg: DictConfig, model: nn.Module) -> dict:
    """Results on the config's test data, {} where it names none; also in results.json beside their images."""
    if "evaluator" not in cfg.dataloader:
        return {}
    results = inference_on_dataset(model, instantiate(cfg.dataloader.test), instantiate(cfg.dataloader.evaluator))
    if comm.is_main_process():
        print_csv_format(results)
        name = "_".join(_names(_value(cfg, "dataloader.test.dataset.names")))
        folder = os.path.join(cfg.train.output_dir, "inference")
        write_results(results, inside(folder, name, "dataloader.test.dataset.names"))
    return results
