"""Training and evaluation of panoptic models with recurrent heads."""

import logging
import os

from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader, build_detection_train_loader
from detectron2.engine import DefaultTrainer
from detectron2.evaluation import DatasetEvaluators
from detectron2.utils import comm
from torch import nn

from crbp_d2.data import PanopticDatasetMapper
from crbp_d2.evaluation import build_panoptic_evaluator, results_table, write_results
from crbp_d2.modeling import check_recurrence_config

from .finite import guard_finite
from .setup import check_inputs


class Trainer(DefaultTrainer):
    """detectron2's DefaultTrainer for panoptic data, with inputs checked first and no update that is not finite.

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

    @classmethod
    def build_train_loader(cls, cfg: CfgNode):
        return build_detection_train_loader(cfg, mapper=PanopticDatasetMapper(cfg, is_train=True))

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str):
        return build_detection_test_loader(cfg, dataset_name, mapper=PanopticDatasetMapper(cfg, is_train=False))

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluators:
        return build_panoptic_evaluator(cfg, dataset_name, inference_folder(cfg, dataset_name))

    @classmethod
    def test(cls, cfg: CfgNode, model: nn.Module, evaluators=None) -> dict:
        """Evaluate on every data set of DATASETS.TEST; log one table each and write it beside the pictures."""
        results = super().test(cfg, model, evaluators)
        if comm.is_main_process():
            names = cfg.DATASETS.TEST
            by_name = {names[0]: results} if len(names) == 1 else results
            for name, result in by_name.items():
                folder = inference_folder(cfg, name)
                write_results(result, folder)
                logging.getLogger(__name__).info("%s (also in %s)\n%s", name, folder, results_table(result, name))
        return results


def inference_folder(cfg: CfgNode, dataset_name: str) -> str:
    """Where an evaluation leaves its files."""
    return os.path.join(cfg.OUTPUT_DIR, "inference", dataset_name)
