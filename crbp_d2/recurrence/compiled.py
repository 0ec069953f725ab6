"""Cell steps through torch.compile, which merges the many small operations of a cell into few.

The compiler differentiates a step once, and for all its inputs together. So the step that a penalty or a
series of Jacobian products differentiates stays as it is.
"""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn

from .state import State


def compiled_step(cell: nn.Module, drive: Tensor, state: State) -> State:
    """`cell(drive, state)` compiled; at most one backward pass may go through it.

    It is compiled at the first call, and again when shapes first change; from then on sizes are variables (but for
    those of 1). A submodule with a method `keep_from_compiler` is left out of what is compiled.
    """
    if not len(drive):
        return cell(drive, state)
    return _compiler()(cell, drive, state)


def check_compiler(device: torch.device | str) -> None:
    """Compile something small.

    Raises:
        RuntimeError: torch.compile does not work on the device, with the reason.
    """
    try:
        torch.compile(_sum_of_softplus)(torch.ones(4, device=device))
    except Exception as error:  # Whatever the compiler's many parts may raise.
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise RuntimeError(f"torch.compile does not work on {device}: {reason[0]}") from error


@cache
def _compiler() -> Callable[[nn.Module, Tensor, State], State]:
    # One for all cells, which are arguments: a copy of a module shall not call the original's cell.
    return torch.compile(_step)


def _step(cell: nn.Module, drive: Tensor, state: State) -> State:
    return cell(drive, state)


def prepare(cell: nn.Module) -> None:
    """Have the submodules that no compiler can look into kept out; see `compiled_step`."""
    for module in cell.modules():
        keep = getattr(module, "keep_from_compiler", None)
        if keep:
            keep()


def _sum_of_softplus(x: Tensor) -> Tensor:
    return nn.functional.softplus(x).sum()
