"""Validation losses and predictions over steps, during training."""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.engine import HookBase
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import nn

from crbp_d2.predict.pictures import Predictions
from crbp_d2.predict.run_folder import metadata_of

from .averaging import copy_values
from .seeding import AUGMENTATION, seeded
from .tasks import task_of


@contextmanager
def kept_modes(model: nn.Module) -> Iterator[None]:
    """Restore the mode of every module at the end of the block: training or evaluation."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def kept_buffers(model: nn.Module) -> Iterator[None]:
    """Restore the buffers at the end of the block, such as running averages of norms."""
    before = [buffer.clone() for buffer in model.buffers()]
    try:
        yield
    finally:
        copy_values(before, model.buffers())


def validation_losses(model: nn.Module, inputs: Iterable[list[dict]], seed: int = 0) -> dict[str, float]:
    """Mean of each training loss over batches of inputs, without an update or any other trace in the model.

    The forward pass is that of training: batch statistics, sampled proposals (by `seed`), and the penalty at its real
    value, for which gradients are recorded and thrown away.
    """
    totals: dict[str, float] = {}
    count = 0
    # A storage of its own: heads log scalars of the solve.
    with kept_modes(model), kept_buffers(model), seeded(seed, AUGMENTATION), EventStorage(), torch.enable_grad():
        model.train()
        for batch in inputs:
            for name, loss in model(batch).items():
                totals[name] = totals.get(name, 0.0) + loss.item() * len(batch)
            count += len(batch)
    return {name: total / count for name, total in totals.items()} if count else {}


def validation_inputs(cfg: CfgNode, count: int) -> Iterator[list[dict]]:
    """The first `count` images of the first test set, one a batch, with their targets and without augmentation."""
    task = task_of(cfg)
    mapper = task.mapper(cfg, is_train=True)
    mapper.augmentations = task.mapper(cfg, is_train=False).augmentations
    for record in DatasetCatalog.get(cfg.DATASETS.TEST[0])[:count]:
        yield [mapper(record)]


class ValidationLoss(HookBase):
    """Logs validation_losses as validation/loss_... and validation/total_loss, every `period` and at the end.

    Args:
        period: iterations between two; 0: at the end only.
        model: the trained one.
        inputs: returns the batches at each call. Every process computes all of them; the main one logs.
    """

    def __init__(self, period: int, model: nn.Module, inputs: Callable[[], Iterable[list[dict]]]):
        self.period = period
        self.model = model
        self.inputs = inputs

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done == self.trainer.max_iter or (self.period and done % self.period == 0):
            losses = validation_losses(self.model, self.inputs())
            if losses and comm.is_main_process():
                total = sum(losses.values())
                scalars = {f"validation/{name}": value for name, value in losses.items()}
                self.trainer.storage.put_scalars(**scalars, **{"validation/total_loss": total}, smoothing_hint=False)
                logging.getLogger(__name__).info("Validation loss %.4g: %s", total, losses)


class PicturesOverSteps(HookBase):
    """Puts the prediction on the first test image over the steps into TensorBoard, every `period` iterations.

    Args:
        cfg: config of the model.
        model: one with a recurrent head.
        period: iterations between two.
    """

    def __init__(self, cfg: CfgNode, model: nn.Module, period: int):
        self.cfg = cfg
        self.model = model
        self.period = period

    def after_step(self) -> None:
        if (self.trainer.iter + 1) % self.period or not comm.is_main_process():
            return
        steps = self.cfg.MODEL.RECURRENCE.STEPS
        record = next(validation_inputs(self.cfg, 1))[0]
        with kept_modes(self.model):
            self.model.eval()
            strip = Predictions(
                self.cfg, self.model, metadata_of(self.cfg), "", steps=sorted({1, (steps + 1) // 2, steps, 2 * steps})
            )
            drawn, _ = strip.predict(image_of(record, strip.predictor.grey))
        self.trainer.storage.put_image("prediction over steps", drawn.transpose(2, 0, 1))


def image_of(record: dict, grey: bool) -> np.ndarray:
    """H x W x C uint8 of a mapped record."""
    pixels = record["image"].numpy()
    return pixels[0] if grey else pixels.transpose(1, 2, 0)
