"""A training step in parts, in float32 or in automatic mixed precision."""

import time
from collections.abc import Iterable

import torch
from detectron2.engine import SimpleTrainer
from torch import Tensor, nn


class PartwiseTrainer(SimpleTrainer):
    """detectron2's SimpleTrainer with batches in parts and a choice of precision.

    The gradient is the mean over the parts, the losses that are logged too. Random numbers are drawn in turn.

    Args:
        model, data_loader, optimizer: see SimpleTrainer.
        parts: that each batch is split in, of equal size where the batch allows it; a batch of fewer images has fewer.
        dtype: of automatic mixed precision, torch.float16 (with loss scaling) or torch.bfloat16; None for float32.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable[list[dict]],
        optimizer: torch.optim.Optimizer,
        parts: int = 1,
        dtype: torch.dtype | None = None,
    ):
        super().__init__(model, data_loader, optimizer)
        self.parts = parts
        self.dtype = dtype
        self.device = next(model.parameters()).device.type
        # Scales losses in float16 only.
        self.grad_scaler = torch.amp.GradScaler(self.device, enabled=dtype is torch.float16)

    def run_step(self) -> None:
        start = time.perf_counter()
        batch = next(self._data_loader_iter)
        data_time = time.perf_counter() - start
        self.optimizer.zero_grad()
        parts = [part for k in range(self.parts) if (part := batch[k :: self.parts])]
        totals: dict[str, Tensor] = {}
        for part in parts:
            with torch.autocast(self.device, dtype=self.dtype, enabled=self.dtype is not None):
                losses = self.model(part)
            fraction = len(part) / len(batch)
            self.grad_scaler.scale(sum(losses.values()) * fraction).backward()
            for name, loss in losses.items():
                totals[name] = totals.get(name, 0) + loss.detach() * fraction
        self.after_backward()
        self._write_metrics(totals, data_time)
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()

    def state_dict(self) -> dict:
        return {**super().state_dict(), "grad_scaler": self.grad_scaler.state_dict()}

    def load_state_dict(self, state_dict: dict) -> None:
        super().load_state_dict(state_dict)
        if state_dict.get("grad_scaler"):
            self.grad_scaler.load_state_dict(state_dict["grad_scaler"])
