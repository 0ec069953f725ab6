"""Stops training before an update that is not finite, and says which term went bad."""

import time
from collections.abc import Callable, Iterable
from types import MethodType

import torch
from detectron2.engine import SimpleTrainer
from torch import Tensor, nn

from crbp_d2.modeling.solve_events import summarize
from crbp_d2.recurrence import Recurrence


def guard_finite(
    model: nn.Module, optimizer: torch.optim.Optimizer, iteration: Callable[[], int], clips_values: bool = False
) -> None:
    """Have `model` check its losses and `optimizer` the gradients, each before it continues.

    Gradients are checked as they come from the backward pass, before the optimizer clips them. Under automatic mixed
    precision the gradient scaler skips updates with overflown gradients itself, so the optimizer never sees them.

    Args:
        model: returns a dict of losses in training.
        iteration: the current iteration, for the message.
        clips_values: the optimizer clips each entry of a gradient, so large finite ones do no harm.

    Raises (later, from the model's forward and the optimizer's step):
        FloatingPointError: names the losses or parameters, the iteration and each recurrence's last solve. Besides
            values that are not finite, finite gradients whose norm overflows stop training (unless `clips_values`):
            clipping by norm would make them zero, and so would Adam's second moments.
    """

    def check_losses(module: nn.Module, inputs: tuple, losses: dict[str, Tensor]) -> None:
        if not module.training or not losses:
            return
        values = {name: loss.detach() for name, loss in losses.items()}
        if not torch.stack([value.float() for value in values.values()]).isfinite().all():
            bad = ", ".join(f"{name} = {value.item()}" for name, value in values.items() if not value.isfinite())
            raise FloatingPointError(f"{bad} at iteration {iteration()}; {_solves(module)}")

    def check_gradients() -> None:
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        if not gradients:
            return
        norms = torch.stack([norm.float() for norm in torch._foreach_norm(list(gradients.values()))])
        if norms.isfinite().all():
            return
        suspects = [name for name, norm in zip(gradients, norms, strict=True) if not norm.isfinite()]
        where = f"at iteration {iteration()}, no update was applied"
        if bad := [name for name in suspects if not gradients[name].isfinite().all()]:
            raise FloatingPointError(
                f"gradient not finite {where}; {len(bad)} parameters, first {bad[0]}; {_solves(model)}"
            )
        if not clips_values:
            largest = gradients[suspects[0]].abs().max().item()
            raise FloatingPointError(
                f"the norm of a finite gradient overflows {where}; {len(suspects)} parameters, first {suspects[0]} "
                f"with entries up to {largest:.3g}; {_solves(model)}"
            )

    step = type(optimizer).step

    def checked_step(self: torch.optim.Optimizer, *args, **kwargs):
        check_gradients()
        return step(self, *args, **kwargs)

    model.register_forward_hook(check_losses)
    # Not a hook of the optimizer: gradients may be clipped in one, or in the step of detectron2's.
    optimizer.step = MethodType(checked_step, optimizer)


def _solves(model: nn.Module) -> str:
    lines = [
        f"last solve of {name}: {summarize(module.last_stats)}"
        for name, module in model.named_modules()
        if isinstance(module, Recurrence) and module.last_stats is not None
    ]
    return "; ".join(lines) or "no recurrence has run"


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


def allow_void_batches(model: nn.Module) -> None:
    """Give a semantic head a loss of zero, with zero gradients, where every pixel of its targets is to be ignored.

    detectron2's takes the mean over the pixels that are left, of which there are none.

    Args:
        model: with a `sem_seg_head` that returns (predictions, losses) for features and targets, or without one.
    """

    def replace(module: nn.Module, inputs: tuple, output: tuple) -> tuple | None:
        if not module.training or len(inputs) < 2 or inputs[1] is None or (inputs[1] != module.ignore_value).any():
            return None
        features, _ = inputs
        # Connected to the graph, so that every parameter has a gradient.
        parts = [*features.values(), *(p for p in module.parameters() if p.requires_grad)]
        zero = sum(part.sum() for part in parts) * 0
        predictions, losses = output
        return predictions, dict.fromkeys(losses, zero)

    head = getattr(model, "sem_seg_head", None)
    if hasattr(head, "ignore_value"):
        head.register_forward_hook(replace)
