"""Training and evaluation of models with recurrent heads."""

import logging
import os

import torch
from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators
from detectron2.utils import comm
from torch import nn

from crbp_d2.evaluation import EarlyStopStatistics, write_results
from crbp_d2.modeling import check_recurrence_config

from .finite import guard_finite
from .loaders import build_test_loader, build_train_loader, start_stream_at
from .optimizer import build_optimizer
from .setup import check_inputs
from .tasks import task_of


class Trainer(DefaultTrainer):
    """detectron2's DefaultTrainer for panoptic and Pathfinder data, by the kind of its data sets.

    Inputs are checked first, and no update is applied that is not finite.

    Args:
        cfg: a config with the keys of `add_crbp_config`.
        resume: the run will go on from a checkpoint in OUTPUT_DIR, so MODEL.WEIGHTS may be missing.

    Raises:
        FileNotFoundError, KeyError, ValueError: see check_inputs and check_recurrence_config.
    """

    def __init__(self, cfg: CfgNode, resume: bool = False):
        check_recurrence_config(cfg)
        check_inputs(cfg, resume=resume)
        super().__init__(cfg)
        guard_finite(self._trainer.model, self._trainer.optimizer, lambda: self.iter)

    def resume_or_load(self, resume: bool = True) -> None:
        super().resume_or_load(resume)
        start_stream_at(self._trainer.data_loader, self.start_iter * self.cfg.SOLVER.IMS_PER_BATCH)

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        return build_optimizer(cfg, model)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode):
        return build_train_loader(cfg)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str):
        return build_test_loader(cfg, dataset_name)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        return task_of(cfg).evaluator(cfg, dataset_name, inference_folder(cfg, dataset_name))

    @classmethod
    def test(cls, cfg: CfgNode, model: nn.Module, evaluators=None) -> dict:
        """Evaluate on every data set of DATASETS.TEST; log a table and write each result beside the pictures."""
        task = task_of(cfg)
        if evaluators is None:
            evaluators = [
                DatasetEvaluators([cls.build_evaluator(cfg, name), EarlyStopStatistics(model)])
                for name in cfg.DATASETS.TEST
            ]
        results = super().test(cfg, task.model(cfg, model), evaluators)
        if comm.is_main_process():
            names = cfg.DATASETS.TEST
            by_name = {names[0]: results} if len(names) == 1 else results
            for name, result in by_name.items():
                write_results(result, inference_folder(cfg, name))
            folder = os.path.dirname(inference_folder(cfg, names[0]))
            logging.getLogger(__name__).info("Results (also in %s)\n%s", folder, task.table(cfg, by_name))
        return results


def inference_folder(cfg: CfgNode, dataset_name: str) -> str:
    """Where an evaluation leaves its files."""
    return os.path.join(cfg.OUTPUT_DIR, "inference", dataset_name)
