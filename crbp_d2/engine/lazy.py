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

from .launch import check_processes
from .lock import RunLock
from .loop import PartwiseTrainer
from .seeding import INITIAL_WEIGHTS, run_seed, seed_draws, seed_generators
from .settings import COMMON, SEED, SIZE, TRAINING, Rule, check_device, check_finite, check_values, or_none
from .setup import start_logging
from .trainer import distribute

PARTS = ("model", "dataloader", "optimizer", "lr_multiplier", "train")
RULES: dict[str, Rule] = {
    "train.output_dir": COMMON["OUTPUT_DIR"],
    "train.max_iter": SIZE,
    "train.checkpointer.period": SIZE,
    "train.log_period": SIZE,
    "train.eval_period": TRAINING["TEST.EVAL_PERIOD"],
    "train.seed": or_none(SEED),
    "dataloader.train.total_batch_size": or_none(SIZE),
    "dataloader.train.num_workers": or_none(COMMON["DATALOADER.NUM_WORKERS"]),
    "dataloader.test.num_workers": or_none(COMMON["DATALOADER.NUM_WORKERS"]),
    "optimizer.lr": or_none(TRAINING["SOLVER.BASE_LR"]),
}


def is_lazy(path: str) -> bool:
    """Returns whether a config file is written in Python."""
    return path.endswith(".py")


def lazy_config(args: argparse.Namespace) -> DictConfig:
    """The config of `args` with its "key=value" options, for an available device. Its data sets are registered.

    Raises:
        ValueError: a missing file, part or key, an option of another form, a flag for YAML configs only.
    """
    path = args.config_file
    if not os.path.isfile(path):
        raise ValueError(f"there is no config file {path!r} (--config-file)")
    if unknown := [flag for flag in ("dry_run", "register", "register_coco") if getattr(args, flag, None)]:
        flag = "--" + unknown[0].replace("_", "-")
        raise ValueError(f"{flag} is for YAML configs; {path} is a LazyConfig, which names its data")
    register_builtin()
    try:
        cfg = LazyConfig.load(path)
        known = set(full_keys(_content(cfg)))
        for option in args.opts:
            key = option.partition("=")[0]
            if not all(option.lstrip("+").partition("=")):
                raise ValueError(f"the options of a LazyConfig are key=value, not {option!r}")
            if key not in known and not key.startswith("+") and OmegaConf.select(cfg, key) is None:
                raise ValueError(f"no key {key!r} (+{option} adds one){did_you_mean(key, known)}")
        cfg = LazyConfig.apply_overrides(cfg, args.opts)
        for part in PARTS:
            if not isinstance(cfg.get(part), DictConfig):
                raise ValueError(f"no section {part}; a LazyConfig to train has {', '.join(PARTS)}")
    except (SyntaxError, ImportError, ValueError, OmegaConfBaseException) as error:
        cause = f" ({error.__cause__})" if error.__cause__ else ""
        raise ValueError(f"{path}: {error}{cause}") from error
    device = OmegaConf.select(cfg, "train.device")
    if getattr(args, "num_processes", 0) or str(device).startswith("cuda") and not torch.cuda.is_available():
        cfg.train.device = "cpu"
    return cfg


def check_lazy_config(args: argparse.Namespace) -> None:
    """Check the settings, data sets and weights that `args` lead to, by rules of YAML configs.

    Raises:
        ValueError: names a key, its value and the allowed values, or the file.
        FileNotFoundError, KeyError: see check_dataset_available and check_weights.
    """
    check_processes(args)
    cfg = lazy_config(args)
    check_values(lambda key: OmegaConf.select(cfg, key), RULES)
    check_finite(leaves(_content(cfg)))
    check_device("train.device", cfg.train.device)
    for part in ("test",) if args.eval_only else ("train", "test"):
        for name in _names(cfg, part):
            check_dataset_available(name, f"dataloader.{part}.dataset.names: ")
    if args.resume and has_checkpoint(cfg.train.output_dir):
        return
    if cfg.train.init_checkpoint:
        check_weights(cfg.train.init_checkpoint, "train.init_checkpoint")
    elif args.eval_only and not args.untrained:
        raise SettingError("train.init_checkpoint", "", "a file for --eval-only, or add --untrained for random weights")


def _content(cfg: DictConfig) -> Any:
    return OmegaConf.to_container(cfg, resolve=False)


def _names(cfg: DictConfig, part: str) -> list[str]:
    """Data sets of the part "train" or "test"."""
    names: Any = OmegaConf.select(cfg, f"dataloader.{part}.dataset.names")
    return [names] if isinstance(names, str) else list(names or ())


def run_lazy(args: argparse.Namespace) -> dict:
    """Train or evaluate in one process by the checked config of `args`; returns the results of the evaluation."""
    # Read in each process: the file may register data sets.
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
    """Train from the initial checkpoint of a config, or with `resume` from the newest one; returns the last results."""
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    loader = instantiate(cfg.dataloader.train)
    model = distribute(model)
    trainer = PartwiseTrainer(model, loader, optimizer, dtype=torch.float16 if cfg.train.amp.enabled else None)
    checkpointer = Checkpointer(model, cfg.train.output_dir, trainer=trainer)
    results: dict = {}
    main = comm.is_main_process()
    writers = default_writers(cfg.train.output_dir, cfg.train.max_iter) if main else []
    trainer.register_hooks(
        [
            hooks.IterationTimer(),
            hooks.LRScheduler(scheduler=instantiate(cfg.lr_multiplier)),
            hooks.PeriodicCheckpointer(checkpointer, **cfg.train.checkpointer) if main else None,
            hooks.EvalHook(cfg.train.eval_period, lambda: results.update(evaluate(cfg, model)) or results),
            hooks.PeriodicWriter(writers, cfg.train.log_period) if main else None,
        ]
    )
    resumes = resume and checkpointer.has_checkpoint()
    checkpointer.resume_or_load(cfg.train.init_checkpoint, resume=resume)
    if main and (names := _names(cfg, "train")):
        write_metadata(names[0], cfg.train.output_dir)
    trainer.train(trainer.iter + 1 if resumes else 0, cfg.train.max_iter)
    return results


def evaluate(cfg: DictConfig, model: nn.Module) -> dict:
    """Results on the test data of a config, {} without an evaluator; also written to results.json."""
    if "evaluator" not in cfg.dataloader:
        return {}
    results = inference_on_dataset(model, instantiate(cfg.dataloader.test), instantiate(cfg.dataloader.evaluator))
    if comm.is_main_process():
        print_csv_format(results)
        name = "_".join(_names(cfg, "test"))
        folder = os.path.join(cfg.train.output_dir, "inference")
        write_results(results, inside(folder, name, "dataloader.test.dataset.names"))
    return results
