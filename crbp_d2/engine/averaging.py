"""An exponential moving average of the weights, and the best checkpoint of a run."""

import contextlib
import os
from collections.abc import Iterator

import torch
from detectron2.engine import HookBase, hooks
from detectron2.utils import comm
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from crbp_d2.evaluation.results import UnknownFigure, listed
from crbp_d2.utils.files import write_atomically


class WeightsOnly:
    """A checkpointer, to detectron2's hooks, that writes weights and nothing to resume from.

    Args:
        model: without DistributedDataParallel.
        folder: where the files go.
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
        model: that is trained, without DistributedDataParallel.
        decay: the fraction of the average that a step keeps.
        folder: where model_ema.pth goes.
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
        """While it lasts, the model's parameters have the averaged values."""
        pairs = list(zip(self.model.parameters(), self.average.module.parameters(), strict=True))
        own = [parameter.detach().clone() for parameter, _ in pairs]
        try:
            for parameter, averaged in pairs:
                parameter.data.copy_(averaged.data)
            yield
        finally:
            for (parameter, _), value in zip(pairs, own, strict=True):
                parameter.data.copy_(value)

    def state_dict(self) -> dict[str, Tensor]:
        names = [name for name, _ in self.average.module.named_parameters()]
        state = self.average.module.state_dict()
        return {"updates": self.average.n_averaged, **{name: state[name] for name in names}}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.average.n_averaged.copy_(state["updates"])
        for name, parameter in self.average.module.named_parameters():
            parameter.data.copy_(state[name])


class BestCheckpoint(hooks.BestCheckpointer):
    """detectron2's BestCheckpointer, whose best figure survives a resume; saves what was evaluated.

    Raises (after an evaluation, in every process):
        UnknownFigure: it has no figure of this name; lists some that it has.

    Args:
        period, metric: see BestCheckpointer.
        weights: writes model_best.pth.
        average: whose weights are evaluated and saved, if any.
    """

    def __init__(self, period: int, weights: WeightsOnly, metric: str, average: AveragedWeights | None = None):
        super().__init__(period, weights, metric)
        self.average = average

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if self._period and done % self._period == 0 and done != self.trainer.max_iter:
            self._check_metric()
        super().after_step()

    def after_train(self) -> None:
        if self.trainer.iter + 1 >= self.trainer.max_iter:
            self._check_metric()
        super().after_train()

    def _check_metric(self) -> None:
        known = self.trainer.storage.latest()
        names = [name for name, (_, last) in known.items() if "/" in name and last == self.trainer.iter]
        found = self._val_metric in known or not names
        # Only the main process has figures.
        found, names = comm.all_gather((found, names))[0]
        if not found:
            raise UnknownFigure(
                f"TEST.BEST_METRIC is {self._val_metric!r}, which the evaluation has no figure for{listed(names)}"
            )

    def _best_checking(self) -> None:
        # Only the main process has figures; it writes.
        if not comm.is_main_process():
            return
        with self.average.applied() if self.average else contextlib.nullcontext():
            super()._best_checking()

    def before_train(self) -> None:
        # An evaluation comes after the checkpoint of its iteration, so a resumed run looks at its results again.
        start = self.trainer.start_iter
        if self._period and start and start % self._period == 0 and self.trainer.storage.latest().get(self._val_metric):
            self._best_checking()

    def state_dict(self) -> dict:
        return {"metric": self.best_metric, "iteration": self.best_iter}

    def load_state_dict(self, state: dict) -> None:
        self.best_metric, self.best_iter = state["metric"], state["iteration"]
