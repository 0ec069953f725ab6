"""One training iteration: parts of a batch, precision, and no update that is not finite."""

import contextlib
import time
from collections.abc import Iterable

import torch
from detectron2.engine import SimpleTrainer
from torch import Tensor, nn

from crbp_d2.modeling.heads import summarize
from crbp_d2.recurrence import Recurrence


class PartwiseTrainer(SimpleTrainer):
    """detectron2's SimpleTrainer with batches in parts, a choice of precision and a check for finite values.

    Losses and gradients are checked before the optimizer steps and before it clips, by one read from the device, which
    the logged losses share. Under float16 the gradient scaler skips updates with gradients that overflow, so only
    losses are checked.

    Args:
        model, data_loader, optimizer: see SimpleTrainer.
        parts: maximum number of contiguous parts of each batch, of equal size where the batch allows it. The loss is
            the mean over the parts, weighted by their images.
        dtype: torch.float16 (with loss scaling) or torch.bfloat16 for automatic mixed precision, None for float32.
        sums: names of losses that are sums over a batch, so that those of its parts are added.
        clips_values: the optimizer clips each entry of a gradient, so large finite ones do no harm.

    Raises (from run_step):
        FloatingPointError: names the losses or parameters, the iteration and each recurrence's last solve. Besides
            values that are not finite, finite gradients whose norm overflows stop training (unless `clips_values`):
            clipping by norm would make them zero, and so would Adam's second moments.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable[list[dict]],
        optimizer: torch.optim.Optimizer,
        parts: int = 1,
        dtype: torch.dtype | None = None,
        sums: tuple[str, ...] = (),
        clips_values: bool = False,
    ):
        super().__init__(model, data_loader, optimizer)
        self.parts = parts
        self.dtype = dtype
        self.sums = sums
        self.clips_values = clips_values
        self.device = next(model.parameters()).device.type
        # Scales losses in float16 only.
        self.grad_scaler = torch.amp.GradScaler(self.device, enabled=dtype is torch.float16)

    def run_step(self) -> None:
        start = time.perf_counter()
        batch = next(self._data_loader_iter)
        data_time = time.perf_counter() - start
        self.optimizer.zero_grad()
        size = -(-len(batch) // self.parts)
        totals: dict[str, Tensor] = {}
        for first in range(0, len(batch), size):
            part = batch[first : first + size]
            # Gradients are averaged over processes once, with the last part.
            within = first + size < len(batch) and hasattr(self.model, "no_sync")
            with self.model.no_sync() if within else contextlib.nullcontext():
                with torch.autocast(self.device, dtype=self.dtype, enabled=self.dtype is not None):
                    losses = self.model(part)
                fraction = len(part) / len(batch)
                losses = {name: loss * (1 if name in self.sums else fraction) for name, loss in losses.items()}
                self.grad_scaler.scale(sum(losses.values())).backward()
            for name, loss in losses.items():
                totals[name] = totals.get(name, 0) + loss.detach()
        self.after_backward()
        if self.grad_scaler.is_enabled():
            # Before the step, so that also a fused optimizer clips what it applies.
            self.grad_scaler.unscale_(self.optimizer)
        self._write_metrics(self._checked(totals), data_time)
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()

    def _checked(self, losses: dict[str, Tensor]) -> dict[str, Tensor]:
        """The losses on the host, where they and the gradients are finite."""
        gradients = [] if self.grad_scaler.is_enabled() else [p.grad for p in self._parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        *values, norm = torch.cat([value.reshape(1) for value in (*losses.values(), norm.to(self.device))]).cpu()
        found = dict(zip(losses, values, strict=True))
        if bad := ", ".join(f"{name} = {value.item()}" for name, value in found.items() if not value.isfinite()):
            raise FloatingPointError(f"{bad} at iteration {self.iter}, no update was applied; {_solves(self.model)}")
        if not norm.isfinite():
            self._check_gradients()
        return found

    def _parameters(self) -> list[nn.Parameter]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def _check_gradients(self) -> None:
        model = getattr(self.model, "module", self.model)
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        suspects = {name: gradient for name, gradient in gradients.items() if not gradient.norm().isfinite()}
        where = f"at iteration {self.iter}, no update was applied"
        if bad := [name for name, gradient in suspects.items() if not gradient.isfinite().all()]:
            raise FloatingPointError(
                f"gradient not finite {where}; {len(bad)} parameters, first {bad[0]}; {_solves(model)}"
            )
        if not self.clips_values:
            largest = max(gradients, key=lambda name: gradients[name].abs().max().item())
            raise FloatingPointError(
                f"the norm of a finite gradient overflows {where}; first {largest} with entries up to "
                f"{gradients[largest].abs().max().item():.3g}; {_solves(model)}"
            )

    def state_dict(self) -> dict:
        return {**super().state_dict(), "grad_scaler": self.grad_scaler.state_dict()}

    def load_state_dict(self, state_dict: dict) -> None:
        super().load_state_dict(state_dict)
        if state_dict.get("grad_scaler"):
            self.grad_scaler.load_state_dict(state_dict["grad_scaler"])


def _solves(model: nn.Module) -> str:
    lines = [
        f"last solve of {name}: {summarize(module.last_stats)}"
        for name, module in model.named_modules()
        if isinstance(module, Recurrence) and module.last_stats is not None
    ]
    return "; ".join(lines) or "no recurrence has run"


def allow_void_batches(model: nn.Module) -> None:
    """Give a semantic head losses of zero, with zero gradients, where every pixel of its targets is to be ignored.

    detectron2's head returns NaN there, the mean over no pixels.

    Args:
        model: its `sem_seg_head`, if any, returns (predictions, losses) for features and targets.
    """
    head = getattr(model, "sem_seg_head", None)
    if hasattr(head, "ignore_value"):
        head.register_forward_hook(_zero_where_void)


def _zero_where_void(module: nn.Module, inputs: tuple, output: tuple) -> tuple | None:
    """A forward hook; by `where`, which does not wait for the device and keeps every parameter in the graph."""
    if not module.training or len(inputs) < 2 or inputs[1] is None:
        return None
    predictions, losses = output
    known = (inputs[1] != module.ignore_value).any()
    return predictions, {name: torch.where(known, loss, torch.zeros_like(loss)) for name, loss in losses.items()}
