"""Training and evaluation by a LazyConfig, a config file in Python.

Its parts are those of detectron2's own: `model`, `dataloader`, `optimizer`, `lr_multiplier` and `train`.
"""

import argparse
import os

import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.engine import AMPTrainer, SimpleTrainer, default_setup, default_writers, hooks
from detectron2.evaluation import inference_on_dataset, print_csv_format
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn

from crbp_d2.checkpoint.loading import Checkpointer
from crbp_d2.data import register_builtin
from crbp_d2.evaluation import write_results
from crbp_d2.predict.run_folder import write_metadata
from crbp_d2.utils.errors import did_you_mean, full_keys

from .launch import check_processes
from .lazy_settings import check_lazy
from .lock import RunLock
from .loop import guard_finite
from .seeding import INITIAL_WEIGHTS, run_seed, seed_generators
from .trainer import distribute

PARTS = ("model", "dataloader", "optimizer", "lr_multiplier", "train")


def is_lazy(path: str) -> bool:
    """Whether a config file is one in Python."""
    return path.endswith(".py")


def lazy_config(args: argparse.Namespace) -> DictConfig:
    """The config of `args`, with its "key=value" options, for a device that is there.

    Raises:
        ValueError: no such file, a part or a key that is missing, an option of another form.
    """
    if not os.path.isfile(args.config_file):
        raise ValueError(f"there is no config file {args.config_file!r} (--config-file)")
    if unknown := [flag for flag in ("dry_run", "register", "register_coco") if getattr(args, flag, None)]:
        flag = "--" + unknown[0].replace("_", "-")
        raise ValueError(f"{flag} goes with a YAML config; {args.config_file} is a LazyConfig, which names its data")
    wrong = [option for option in args.opts if not all(option.lstrip("+").partition("=")[:2])]
    if wrong:
        raise ValueError(f"{args.config_file} is a LazyConfig, whose options are key=value, not {wrong[0]!r}")
    register_builtin()
    try:
        cfg = LazyConfig.load(args.config_file)
    except (SyntaxError, ImportError, UnicodeDecodeError) as error:
        cause = f" ({error.__cause__})" if error.__cause__ else ""
        raise ValueError(f"{args.config_file}: {error}{cause}") from error
    if missing := [part for part in PARTS if part not in cfg]:
        raise ValueError(
            f"{args.config_file} has no {', '.join(missing)}; a LazyConfig to train has {', '.join(PARTS)}"
        )
    for option in args.opts:
        key = option.split("=", 1)[0].lstrip("+")
        if not option.startswith("+") and OmegaConf.select(cfg, key, default=None) is None:
            content = OmegaConf.to_container(cfg, resolve=False)
            known = full_keys(content) if isinstance(content, dict) else ()
            raise ValueError(f"{args.config_file} has no key {key!r} (+{option} adds one){did_you_mean(key, known)}")
    try:
        cfg = LazyConfig.apply_overrides(cfg, args.opts)
    except (OmegaConfBaseException, ValueError) as error:
        raise ValueError(f"{args.config_file}: {' '.join(str(error).split())}") from error
    check_processes(args)
    check_lazy(cfg, args)
    if getattr(args, "num_processes", 0) or (cfg.train.device.startswith("cuda") and not torch.cuda.is_available()):
        cfg.train.device = "cpu"
    if cfg.train.amp.enabled and cfg.train.device == "cpu":
        raise ValueError("train.amp.enabled is True, which needs a CUDA device; train.device is 'cpu'")
    return cfg


def run_lazy(args: argparse.Namespace) -> dict:
    """What each process does; results of the evaluation."""
    cfg = lazy_config(args)
    with RunLock(cfg.train.output_dir) as lock:
        default_setup(cfg, args)
        setup_logger(cfg.train.output_dir, distributed_rank=comm.get_rank(), name="crbp_d2")
        lock.log_notes()
        seed_generators(run_seed(cfg.train.get("seed", -1)), INITIAL_WEIGHTS)
        model = instantiate(cfg.model).to(cfg.train.device)
        if not args.eval_only:
            return train(cfg, model, resume=args.resume)
        Checkpointer(model, cfg.train.output_dir, complete=True).resume_or_load(
            cfg.train.init_checkpoint, resume=args.resume
        )
        return evaluate(cfg, distribute(model))


def train(cfg: DictConfig, model: nn.Module, *, resume: bool = False) -> dict:
    """Train as the config says, from its initial checkpoint or with `resume` from the newest one; the last results."""
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    loader = instantiate(cfg.dataloader.train)
    model = distribute(model)
    trainer = (AMPTrainer if cfg.train.amp.enabled else SimpleTrainer)(model, loader, optimizer)
    guard_finite(model, optimizer, lambda: trainer.iter)
    checkpointer = Checkpointer(model, cfg.train.output_dir, trainer=trainer)
    results: dict = {}

    def evaluate_now() -> dict:
        results.update(evaluate(cfg, model))
        return results

    main = comm.is_main_process()
    trainer.register_hooks(
        [
            hooks.IterationTimer(),
            hooks.LRScheduler(scheduler=instantiate(cfg.lr_multiplier)),
            hooks.PeriodicCheckpointer(checkpointer, **cfg.train.checkpointer) if main else None,
            hooks.EvalHook(cfg.train.eval_period, evaluate_now),
            hooks.PeriodicWriter(default_writers(cfg.train.output_dir, cfg.train.max_iter), cfg.train.log_period)
            if main
            else None,
        ]
    )
    resumes = resume and checkpointer.has_checkpoint()
    checkpointer.resume_or_load(cfg.train.init_checkpoint, resume=resume)
    if main:
        names = cfg.dataloader.train.dataset.names
        write_metadata(names if isinstance(names, str) else names[0], cfg.train.output_dir)
    trainer.train(trainer.iter + 1 if resumes else 0, cfg.train.max_iter)
    return results


def evaluate(cfg: DictConfig, model: nn.Module) -> dict:
    """Results on the config's test data, {} where it names none; also in results.json beside their pictures."""
    if "evaluator" not in cfg.dataloader:
        return {}
    results = inference_on_dataset(model, instantiate(cfg.dataloader.test), instantiate(cfg.dataloader.evaluator))
    if comm.is_main_process():
        print_csv_format(results)
        names = cfg.dataloader.test.dataset.names
        write_results(results, os.path.join(cfg.train.output_dir, "inference", str(names)))
    return results
