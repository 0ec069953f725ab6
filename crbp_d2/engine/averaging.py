"""An exponential moving average of the weights, and the best checkpoint of a run."""

import contextlib
import os
from collections.abc import Iterable, Iterator

import torch
from detectron2.engine import HookBase, hooks
from detectron2.utils import comm
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from crbp_d2.evaluation.results import UnknownFigure, listed
from crbp_d2.utils.files import write_atomically


class WeightsOnly:
    """A checkpointer for detectron2's hooks that writes weights only, so nothing resumes from them.

    Args:
        model: module without DistributedDataParallel.
        folder: path to write to.
    """

    def __init__(self, model: nn.Module, folder: str):
        self.model = model
        self.folder = folder

    def save(self, name: str, **extra: object) -> None:
        """Write `folder`/name.pth atomically; `extra` is left out."""
        content = {"model": self.model.state_dict()}
        write_atomically(os.path.join(self.folder, f"{name}.pth"), lambda file: torch.save(content, file))


class AveragedWeights(HookBase):
    """Averages the weights after every step by torch's AveragedModel; buffers are those of the last step.

    The average is kept in checkpoints, and written to model_ema.pth when training ends.

    Args:
        model: trained module without DistributedDataParallel.
        decay: fraction of the average that a step keeps.
        folder: path of the folder of model_ema.pth.
    """

    def __init__(self, model: nn.Module, decay: float, folder: str):
        self.model = model
        self.average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))
        self.weights = WeightsOnly(model, folder)

    def after_step(self) -> None:
        self.average.update_parameters(self.model)

    def after_train(self) -> None:
        if self.trainer.iter + 1 >= self.trainer.max_iter and comm.is_main_process():
            with self.applied():
                self.weights.save("model_ema")

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Within the block the model's parameters have the averaged values."""
        own = [parameter.detach().clone() for parameter in self.model.parameters()]
        try:
            copy_values(self.average.module.parameters(), self.model.parameters())
            yield
        finally:
            copy_values(own, self.model.parameters())

    def state_dict(self) -> dict[str, Tensor]:
        averaged = {name: parameter.detach() for name, parameter in self.average.module.named_parameters()}
        return {"updates": self.average.n_averaged, **averaged}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        averaged = dict(self.average.module.named_parameters())
        self.average.n_averaged.copy_(state["updates"])
        copy_values((state[name] for name in averaged), averaged.values())


@torch.no_grad()
def copy_values(values: Iterable[Tensor], targets: Iterable[Tensor]) -> None:
    """Copy tensors into others, one by one."""
    for value, target in zip(values, targets, strict=True):
        target.copy_(value)


class BestCheckpoint(hooks.BestCheckpointer):
    """detectron2's BestCheckpointer, whose best metric survives a resume; saves what was evaluated.

    Args:
        period, metric: see BestCheckpointer.
        weights: writes model_best.pth.
        average: averaged weights that are evaluated and saved, if any.

    Raises (after an evaluation, in every process):
        UnknownFigure: the evaluation has no metric of this name; lists some that it has.
    """

    def __init__(self, period: int, weights: WeightsOnly, metric: str, average: AveragedWeights | None = None):
        super().__init__(period, weights, metric)
        self.average = average

    def _check_metric(self) -> None:
        known = self.trainer.storage.latest()
        names = [name for name, (_, last) in known.items() if "/" in name and last == self.trainer.iter]
        found = self._val_metric in known or not names
        # Only the main process has metrics.
        found, names = comm.all_gather((found, names))[0]
        if not found:
            raise UnknownFigure(
                f"TEST.BEST_METRIC is {self._val_metric!r}, which is not among the evaluation's metrics{listed(names)}"
            )

    def _best_checking(self) -> None:
        self._check_metric()
        self._save_if_best()

    def _save_if_best(self) -> None:
        # Only the main process has metrics; it writes.
        if comm.is_main_process():
            with self.average.applied() if self.average else contextlib.nullcontext():
                super()._best_checking()

    def before_train(self) -> None:
        # An evaluation comes after the checkpoint of its iteration, so a resumed run looks at its results again.
        start = self.trainer.start_iter
        if self._period and start and start % self._period == 0 and self.trainer.storage.latest().get(self._val_metric):
            self._save_if_best()

    def state_dict(self) -> dict:
        return {"metric": self.best_metric, "iteration": self.best_iter}

    def load_state_dict(self, state: dict) -> None:
        self.best_metric, self.best_iter = state["metric"], state["iteration"]
