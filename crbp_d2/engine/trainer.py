"""Training and evaluation of models with recurrent heads."""

import contextlib
import functools
import logging
import os
import weakref
from collections.abc import Iterable

import torch
from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer, HookBase, TrainerBase, create_ddp_model, hooks
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators
from detectron2.utils import comm
from detectron2.utils.events import CommonMetricPrinter, EventWriter, TensorboardXWriter
from detectron2.utils.logger import setup_logger
from torch import nn

from crbp_d2.checkpoint.loading import Checkpointer
from crbp_d2.data import register_builtin
from crbp_d2.evaluation import EarlyStopStatistics, SettlingStatistics, write_results
from crbp_d2.evaluation.results import UnknownFigure, check_expected
from crbp_d2.modeling.heads import recurrent_heads
from crbp_d2.predict.run_folder import KeepMetadata

from .averaging import AveragedWeights, BestCheckpoint, WeightsOnly
from .loaders import TrainLoader, build_test_loader, build_train_loader
from .lock import set_aside
from .loop import PartwiseTrainer, allow_void_batches
from .optimizer import build_optimizer, resume_optimizer
from .resume import (
    MetricsWriter,
    NamedWriter,
    RepeatablePreciseBN,
    ResumedEvaluation,
    ResumedMetrics,
    SeedEveryStep,
)
from .seeding import INITIAL_WEIGHTS, run_seed, seed_draws, seed_generators
from .setup import check
from .tasks import inference_folder, task_of
from .validation import PicturesOverSteps, ValidationLoss, kept_modes, validation_inputs

# Losses that PENALTY.REDUCTION is about.
PENALTIES = ("loss_lipschitz", "loss_lipschitz_sem_seg")


class Trainer(DefaultTrainer):
    """detectron2's DefaultTrainer for panoptic and Pathfinder data, by the kind of its data sets.

    Inputs are checked first, no update is applied that is not finite, and a run that is killed and resumed ends
    with the weights of one that was not: initial weights, order of the data, augmentation and every step draw random
    numbers from SEED and what they are for.

    Args:
        cfg: a config with the keys of `add_crbp_config`.
        resume: the run will continue from a checkpoint in OUTPUT_DIR, so MODEL.WEIGHTS may be missing.
        checked: the config has passed `check` already.

    Raises:
        FileNotFoundError, KeyError, ValueError: see check.
    """

    def __init__(self, cfg: CfgNode, resume: bool = False, checked: bool = False):
        if not checked:
            check(cfg, resume=resume)
        cfg = self.auto_scale_workers(cfg, comm.get_world_size())
        TrainerBase.__init__(self)
        if not logging.getLogger("detectron2").isEnabledFor(logging.INFO):
            # As detectron2's trainer does where no log is set up.
            setup_logger()
        self.cfg = cfg
        self.seed = run_seed(cfg.SEED)
        self.start_iter, self.max_iter = 0, cfg.SOLVER.MAX_ITER
        seed_generators(self.seed, INITIAL_WEIGHTS)
        model = self.build_model(cfg)
        seed_draws(model, self.seed)
        allow_void_batches(model)
        optimizer = self.build_optimizer(cfg, model)
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        clipping, amp = cfg.SOLVER.CLIP_GRADIENTS, cfg.SOLVER.AMP
        self._trainer = PartwiseTrainer(
            distribute(model),
            self.build_train_loader(cfg),
            optimizer,
            parts=cfg.SOLVER.ACCUMULATE,
            dtype=getattr(torch, amp.DTYPE) if amp.ENABLED else None,
            sums=PENALTIES if cfg.MODEL.RECURRENCE.PENALTY.REDUCTION == "sum" else (),
            clips_values=clipping.ENABLED and clipping.CLIP_TYPE == "value",
        )
        self.checkpointer = Checkpointer(model, cfg.OUTPUT_DIR, trainer=weakref.proxy(self))
        self.average = AveragedWeights(model, cfg.SOLVER.EMA.DECAY, cfg.OUTPUT_DIR) if cfg.SOLVER.EMA.ENABLED else None
        self.metrics: MetricsWriter | None = None
        self.register_hooks(self.build_hooks())

    def resume_or_load(self, resume: bool = True) -> None:
        """Resume from the newest checkpoint of OUTPUT_DIR that loads, or begin with MODEL.WEIGHTS.

        A run that begins sets the checkpoints of an earlier one aside.
        """
        resumes = resume and self.checkpointer.has_checkpoint()
        self.checkpointer.resume_or_load(self.cfg.MODEL.WEIGHTS, resume=resume)
        if resumes:
            self.start_iter = self.iter + 1
        else:
            comm.synchronize()
            if comm.is_main_process():
                set_aside(self.cfg.OUTPUT_DIR)
        # That of the checkpoint, if any.
        seed_draws(self.checkpointer.model, self.seed)
        if isinstance(self.data_loader, TrainLoader):
            self.data_loader.seed = self.seed
            self.data_loader.first_batch = self.start_iter

    def load_state_dict(self, state_dict: dict) -> None:
        with resume_optimizer(self.optimizer, self.scheduler, state_dict["_trainer"]["optimizer"]):
            super().load_state_dict(state_dict)

    def train(self) -> dict | None:
        os.makedirs(self.cfg.OUTPUT_DIR, exist_ok=True)
        if self.start_iter >= self.max_iter:
            logging.getLogger(__name__).warning(
                "The checkpoint has all of the %d iterations of SOLVER.MAX_ITER, so there is nothing to train",
                self.max_iter,
            )
            if comm.is_main_process() and not os.path.exists(os.path.join(self.cfg.OUTPUT_DIR, "model_final.pth")):
                # The run was killed between its last two checkpoints.
                self.checkpointer.save("model_final", iteration=self.iter)
        try:
            return super().train()
        finally:
            if isinstance(self.data_loader, TrainLoader):
                self.data_loader.close()

    def after_train(self) -> None:
        # detectron2 counts one on, also where nothing was left to train.
        self.iter = min(self.iter, self.max_iter)
        super().after_train()

    def build_hooks(self) -> list[HookBase]:
        """detectron2's hooks and those that make a resumed run exact; the writers come last."""
        period, built = self.cfg.TEST.EVAL_PERIOD, super().build_hooks()
        metrics = ResumedMetrics(self.metrics)
        for k, hook in enumerate(built):
            if isinstance(hook, hooks.PreciseBN):
                loader = self.build_train_loader(self.cfg)
                built[k] = RepeatablePreciseBN(period, self.model, loader, self.cfg.TEST.PRECISE_BN.NUM_ITER)
            elif isinstance(hook, hooks.EvalHook):
                built[k] = ResumedEvaluation(metrics, period, self.evaluate)
        # The writers are last: what hooks log comes before.
        writers = [built.pop()] if built and isinstance(built[-1], hooks.PeriodicWriter) else []
        return [SeedEveryStep(), metrics, KeepMetadata(), *self.own_hooks(), *built, *self.best_hooks(), *writers]

    def own_hooks(self) -> list[HookBase]:
        """Hooks that keys of the config turn on."""
        cfg, model, found = self.cfg, self.checkpointer.model, []
        if self.average:
            found.append(self.average)
        if cfg.TEST.VALIDATION_IMAGES and cfg.DATASETS.TEST:
            inputs = functools.partial(validation_inputs, cfg, cfg.TEST.VALIDATION_IMAGES)
            found.append(ValidationLoss(cfg.TEST.EVAL_PERIOD, model, inputs))
        if cfg.VIS_PERIOD and cfg.DATASETS.TEST and recurrent_heads(model):
            found.append(PicturesOverSteps(cfg, model, cfg.VIS_PERIOD))
        return found

    def best_hooks(self) -> list[HookBase]:
        """Hooks that read the results of an evaluation, so they come after it."""
        if not self.cfg.TEST.BEST_METRIC:
            return []
        test, weights = self.cfg.TEST, WeightsOnly(self.checkpointer.model, self.cfg.OUTPUT_DIR)
        return [BestCheckpoint(test.EVAL_PERIOD, weights, test.BEST_METRIC, self.average)]

    def evaluate(self) -> dict:
        """Evaluate the current model, with the averaged weights if there are any; training keeps the results."""
        with self.average.applied() if self.average else contextlib.nullcontext():
            self._last_eval_results = self.test(self.cfg, self.model)
        return self._last_eval_results

    def build_writers(self) -> list[EventWriter]:
        folder = self.cfg.OUTPUT_DIR
        self.metrics = MetricsWriter(os.path.join(folder, "metrics.json"))
        return [CommonMetricPrinter(self.max_iter), self.metrics, NamedWriter(TensorboardXWriter(folder), folder)]

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        return build_optimizer(cfg, model)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> Iterable[list[dict]]:
        return build_train_loader(cfg)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Iterable[list[dict]]:
        return build_test_loader(cfg, dataset_name)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        return task_of(cfg).evaluator(cfg, dataset_name, inference_folder(cfg, dataset_name))

    @classmethod
    def test(cls, cfg: CfgNode, model: nn.Module, evaluators=None) -> dict:
        """Evaluate on every data set of DATASETS.TEST; log a table and write each result to its folder.

        Every module keeps its mode.
        """
        if not cfg.DATASETS.TEST:
            return {}
        register_builtin()
        task = task_of(cfg)
        if evaluators is None:
            evaluators = [
                DatasetEvaluators([cls.build_evaluator(cfg, name), *_statistics(cfg, model)])
                for name in cfg.DATASETS.TEST
            ]
        with kept_modes(model):
            results = super().test(cfg, task.model(cfg, model), evaluators)
        problem = None
        if comm.is_main_process():
            names = cfg.DATASETS.TEST
            by_name = {names[0]: results} if len(names) == 1 else results
            for name, result in by_name.items():
                write_results(result, inference_folder(cfg, name))
            folder = os.path.dirname(inference_folder(cfg, names[0]))
            logging.getLogger(__name__).info("Results (also in %s)\n%s", folder, task.table(cfg, by_name))
            problem = _problem_of(cfg, results)
        if problem := comm.all_gather(problem)[0]:
            raise problem
        return results


def _problem_of(cfg: CfgNode, results: dict) -> UnknownFigure | None:
    try:
        check_expected(cfg.TEST.EXPECTED_RESULTS, results)
    except UnknownFigure as error:
        return error
    return None


def distribute(model: nn.Module) -> nn.Module:
    """Wrap a model in DistributedDataParallel where several processes run, on GPUs or on the CPU."""
    on_cpu = next(model.parameters()).device.type == "cpu"
    return create_ddp_model(model, broadcast_buffers=False, **({"device_ids": None} if on_cpu else {}))


def _statistics(cfg: CfgNode, model: nn.Module) -> list[DatasetEvaluator]:
    return [EarlyStopStatistics(model), *([SettlingStatistics(model)] if cfg.TEST.SETTLING else [])]
