"""One run of the Pathfinder study: train, follow, test, write a record.

N: trained steps.
"""

import json
import math
import os
import statistics
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.engine import HookBase, default_argument_parser, launch
from detectron2.engine.hooks import EvalHook
from torch import nn

from crbp_d2.engine.setup import check_inputs, merged_config, setup
from crbp_d2.engine.trainer import Trainer
from crbp_d2.utils.files import write_text
from tools.page import machine

from .run_measures import (
    LONGEST,
    drive_of,
    first_batches,
    held_out_set,
    probe,
    quality_by_step,
    stability,
    state_space,
)
from .runs import JOBS, SCALES, Run, Scale

# Iterations between two tests on validation stimuli in training, and the number of stimuli.
PROBE_PERIOD, PROBE_STIMULI = 100, 48
# Stimuli of the state space.
STATE_STIMULI = 64
SETTINGS = "settings.yaml"


@dataclass(frozen=True)
class Job:
    """A run with a seed at a scale.

    root: repository root of configs and results.
    output: folder of the training's checkpoints.
    """

    name: str
    seed: int
    scale_name: str
    root: Path
    output: Path
    num_gpus: int = 0

    @property
    def run(self) -> Run:
        return JOBS[self.name]

    @property
    def scale(self) -> Scale:
        return SCALES[self.scale_name]

    @property
    def record(self) -> Path:
        return self.root / self.scale.folder / "runs" / f"{self.name}_s{self.seed}.json"

    @property
    def checkpoint(self) -> str | None:
        """Path of the weights, relative to `root`; None for a pilot."""
        return f"{self.scale.folder}/checkpoints/{self.name}_s{self.seed}.pth" if self.run.tested else None

    @property
    def config(self) -> str:
        return f"{self.scale.prefix}{self.run.config}.yaml"

    @property
    def options(self) -> list:
        """Config keys and values on top of the config's."""
        return self.run.all_options(self.scale)

    def arguments(self):
        flags = ["--config-file", str(self.root / self.config), "--num-gpus", str(self.num_gpus), "--resume"]
        places = {"SEED": self.seed, "OUTPUT_DIR": str(self.output), "TEST.PICTURES": 0, "TEST.EVAL_PERIOD": 0}
        options = [*self.options, *(part for item in places.items() for part in item)]
        return default_argument_parser().parse_args([*flags, *map(str, options)])


class StudyTrainer(Trainer):
    """Trainer that probes a few validation stimuli in place of evaluations."""

    def build_hooks(self) -> list[HookBase]:
        hooks = [StepTimes(), *(hook for hook in super().build_hooks() if not isinstance(hook, EvalHook))]
        if _steps_of(_unwrapped(self.model)) is not None:
            # Before the writers, which come last.
            hooks.insert(-1, Probe(self.cfg))
        return hooks


def _unwrapped(model: nn.Module) -> nn.Module:
    """The model inside a DistributedDataParallel."""
    return getattr(model, "module", model)


class StepTimes(HookBase):
    """Writes the processor and wall-clock seconds of each training step to metrics.json.

    Processor time does not depend on other work. detectron2's `time` skips the first iterations of a run.
    """

    def before_step(self) -> None:
        self.start = time.process_time(), time.perf_counter()

    def after_step(self) -> None:
        processor, clock = self.start
        self.trainer.storage.put_scalar("processor_time", time.process_time() - processor)
        self.trainer.storage.put_scalar("wall_time", time.perf_counter() - clock)


class Probe(HookBase):
    """Writes F1 at N and T, penalty and residual at N to metrics.json every PROBE_PERIOD iterations."""

    def __init__(self, cfg: CfgNode):
        self.cfg = cfg
        self.name = cfg.DATASETS.TEST[0]

    def after_step(self) -> None:
        if (self.trainer.iter + 1) % PROBE_PERIOD:
            return
        model = _unwrapped(self.trainer.model)
        batches = first_batches(self.cfg, self.name, PROBE_STIMULI)
        for key, value in probe(model, batches, self.name, _steps_of(model)).items():
            self.trainer.storage.put_scalar(f"probe/{key}", value, smoothing_hint=False)
        model.train()


def claim_output(folder: Path, cfg: CfgNode) -> None:
    """Write `cfg` into an output folder that has none, so that no training with other settings is resumed there.

    Raises:
        ValueError: the folder has another config; names the keys that differ.
    """
    path = folder / SETTINGS
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_text(path, cfg.dump())
        return
    # Both as YAML holds them, without tuples.
    there, wanted = (_flat(CfgNode.load_cfg(text)) for text in (path.read_text(), cfg.dump()))
    keys = sorted(key for key in there.keys() | wanted.keys() if there.get(key) != wanted.get(key))
    if keys:
        changes = ", ".join(f"{key} {there.get(key)!r} (now {wanted.get(key)!r})" for key in keys)
        raise ValueError(f"{folder} holds a training with {changes}; remove the folder to train anew")


def _flat(node: CfgNode, prefix: str = "") -> dict[str, object]:
    flat = {}
    for key, value in node.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, CfgNode) else {f"{prefix}{key}": value}
    return flat


def run_job(job: Job) -> None:
    """Train (or resume training), test, and write the record of a run.

    Raises:
        FileNotFoundError, KeyError: see check_inputs.
        ValueError: likewise; the output folder holds a training with other settings.
        FloatingPointError: training gave values that are not finite.
    """
    args = job.arguments()
    claim_output(job.output, merged_config(args))
    launch(_train, args.num_gpus, dist_url=args.dist_url, args=(args,))
    cfg = setup(args)
    model = StudyTrainer.build_model(cfg).eval()
    DetectionCheckpointer(model).load(str(job.output / "model_final.pth"))
    single_thread = model.device.type == "cpu" and torch.get_num_threads() == 1
    record = _describe(job, cfg, model) | _training(job.output, single_thread)
    if job.run.tested:
        record |= _measure(job, cfg, model)
    if job.checkpoint:
        path = job.root / job.checkpoint
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"model": model.state_dict()}, path)
    job.record.parent.mkdir(parents=True, exist_ok=True)
    write_text(job.record, json.dumps(_with_nulls(record), allow_nan=False) + "\n")


def _with_nulls(value: object) -> object:
    """The value with None for non-finite numbers, which JSON lacks."""
    if isinstance(value, dict):
        return {key: _with_nulls(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_with_nulls(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _train(args) -> None:
    cfg = setup(args)
    if os.path.exists(os.path.join(cfg.OUTPUT_DIR, "model_final.pth")):
        return
    check_inputs(cfg, resume=True)
    trainer = StudyTrainer(cfg, resume=True)
    trainer.resume_or_load(resume=True)
    trainer.train()


def _describe(job: Job, cfg: CfgNode, model: nn.Module) -> dict:
    steps = _steps_of(model)
    recurrent = steps is not None
    node = cfg.MODEL.RECURRENCE
    return {
        "run": job.name,
        "seed": job.seed,
        "scale": job.scale_name,
        "config": job.config,
        "options": job.options,
        "rule": node.RULE if recurrent else None,
        "cell": node.CELL.NAME if recurrent else type(model.sem_seg_head.layers).__name__,
        "steps": steps,
        "kernel_size": node.CELL.KERNEL_SIZE,
        "channels": cfg.MODEL.CONTOUR.CHANNELS,
        "parameters": sum(p.numel() for p in model.parameters()),
        "iterations": cfg.SOLVER.MAX_ITER,
        "batch": cfg.SOLVER.IMS_PER_BATCH,
        "learning_rate": cfg.SOLVER.BASE_LR,
        "machine": f"{machine()}; {torch.get_num_threads()} thread(s)",
        "commit": _commit(job.root),
        "checkpoint": job.checkpoint,
    }


def _training(output: Path, single_thread: bool) -> dict:
    """Times and curves from detectron2's metrics.json; after a resumed run later lines replace earlier ones.

    Args:
        single_thread: store processor times, which other programs do not change, instead of wall times.
    """
    lines = [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]
    rows = sorted({line["iteration"]: line for line in lines if "total_loss" in line}.items())
    key = "processor_time" if single_thread else "wall_time"
    iteration = statistics.median(line[key] for _, line in rows if key in line)

    def column(key: str, of: list[tuple[int, dict]]) -> list:
        return [line.get(key) for _, line in of]

    probes = sorted({line["iteration"]: line for line in lines if "probe/f1" in line}.items())
    record = {
        "seconds": {"iteration": iteration, "training": iteration * (rows[-1][0] + 1)},
        "curve": {
            "iteration": [k + 1 for k, _ in rows],
            # detectron2 leaves out the parts of a loss that is the only one.
            "loss": [line.get("loss_sem_seg", line["total_loss"]) for _, line in rows],
            "residual": column("recurrence/residual", rows),
        },
    }
    if probes:
        keys = [key.removeprefix("probe/") for key in probes[0][1] if key.startswith("probe/")]
        record["probe"] = {"iteration": [k + 1 for k, _ in probes]}
        record["probe"] |= {key: column(f"probe/{key}", probes) for key in keys}
    return record


def _measure(job: Job, cfg: CfgNode, model: nn.Module) -> dict:
    scale, steps = job.scale, _steps_of(model)
    names = {spec: held_out_set(spec, count, scale.test_seed) for spec, count in scale.specs.items()}
    followed = tuple(range(1, LONGEST * steps + 1)) if steps else ()
    record = {"quality": {}}
    for spec, name in names.items():
        batches = first_batches(cfg, name, scale.specs[spec])
        f1 = quality_by_step(model, batches, name, followed)
        record["quality"][spec] = {"stimuli": scale.specs[spec], "steps": list(followed) or [0], "f1": f1}
    if steps:
        cell = model.sem_seg_head.recurrence.cell
        drives = [drive_of(model, batch) for batch in first_batches(cfg, names[scale.spec], STATE_STIMULI)]
        record["stability"] = stability(cell, drives[0], steps)
        record["state_space"] = state_space(cell, drives, steps)
    return record


def _steps_of(model: nn.Module) -> int | None:
    """N: evaluations of the cell in training, at most or on average; None without a recurrence."""
    recurrence = getattr(model.sem_seg_head, "recurrence", None)
    return recurrence and recurrence.solver.steps


def _commit(root: Path) -> str | None:
    """The commit of the code, with a "+" if files are changed; None outside of a repository."""
    command = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"]
    found = subprocess.run(command, capture_output=True, text=True)
    return found.stdout.strip() if found.returncode == 0 else None
