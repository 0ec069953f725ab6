"""Stops training before an update that is not finite, and says which term went bad."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from crbp_d2.modeling.solve_events import summarize
from crbp_d2.recurrence import Recurrence


def guard_finite(model: nn.Module, optimizer: torch.optim.Optimizer, iteration: Callable[[], int]) -> None:
    """Have `model` check its losses and `optimizer` the gradients, each before it goes on.

    Under automatic mixed precision the gradient scaler skips updates with overflown gradients itself,
    so the optimizer never sees them.

    Args:
        model: returns a dict of losses in training.
        iteration: the current iteration, for the message.

    Raises (later, from the model's forward and the optimizer's step):
        FloatingPointError: names the losses or parameters, the iteration and each recurrence's last solve.
    """

    def check_losses(module: nn.Module, inputs: tuple, losses: dict[str, Tensor]) -> None:
        if not module.training:
            return
        values = {name: loss.detach() for name, loss in losses.items()}
        if not torch.stack([value.float() for value in values.values()]).isfinite().all():
            bad = ", ".join(f"{name} = {value.item()}" for name, value in values.items() if not value.isfinite())
            raise FloatingPointError(f"{bad} at iteration {iteration()}; {_solves(module)}")

    def check_gradients(*_) -> None:
        with_gradient = [(name, p.grad) for name, p in model.named_parameters() if p.grad is not None]
        norms = torch._foreach_norm([gradient for _, gradient in with_gradient])
        if not torch.stack(norms).isfinite().all():
            bad = [name for (name, _), norm in zip(with_gradient, norms, strict=True) if not norm.isfinite()]
            raise FloatingPointError(
                f"gradient not finite at iteration {iteration()}, no update was applied; {len(bad)} parameters, "
                f"first {bad[0]}; {_solves(model)}"
            )

    model.register_forward_hook(check_losses)
    optimizer.register_step_pre_hook(check_gradients)


def _solves(model: nn.Module) -> str:
    lines = [
        f"last solve of {name}: {summarize(module.last_stats)}"
        for name, module in model.named_modules()
        if isinstance(module, Recurrence) and module.last_stats is not None
    ]
    return "; ".join(lines) or "no recurrence has run"
