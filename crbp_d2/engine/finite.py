"""Stops training before an update that is not finite, and says which term went bad."""

from collections.abc import Callable
from types import MethodType

import torch
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
