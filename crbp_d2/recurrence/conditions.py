"""The conditions under which a cell has taken a step, to take the same step once more."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call

from .interfaces import Cell
from .random_state import RandomState
from .state import State


def tensors_of(cell: Cell) -> dict[str, Tensor]:
    """All parameters and buffers of a cell, by name."""
    return {**dict(cell.named_parameters()), **dict(cell.named_buffers())} if isinstance(cell, nn.Module) else {}


class Conditions:
    """Of one step: random numbers, the modes of all modules, buffers before the step wrote into them.

    Attributes:
        overwritten: copies of those buffers, by name.
    """

    def __init__(self, cell: Cell, device: torch.device):
        self.cell = cell
        self.overwritten: dict[str, Tensor] = {}
        self._random = RandomState(device)
        self._modes: list[bool] | None = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """The extent of the step: what is noted at first is restored later."""
        modules = list(self.cell.modules()) if isinstance(self.cell, nn.Module) else []
        modes = [module.training for module in modules]
        if self._modes is None:
            self._modes = modes
            self._random.keep()
            buffers = dict(self.cell.named_buffers()) if isinstance(self.cell, nn.Module) else {}
            copies = {name: buffer.clone() for name, buffer in buffers.items()}
            yield
            self.overwritten = {
                name: copies[name] for name, buffer in buffers.items() if not torch.equal(buffer, copies[name])
            }
            return
        _set_modes(modules, modes, self._modes)
        try:
            yield
        finally:
            _set_modes(modules, self._modes, modes)

    def random(self) -> AbstractContextManager[None]:
        """The random numbers of the step and of what follows it; afterwards the present ones again."""
        return self._random.restored()

    def call_with(
        self, tensors: Mapping[str, Tensor], call: Callable[[Tensor, State], State], drive: Tensor, state: State
    ) -> State:
        """The step with these parameters and buffers in place of the cell's.

        Where they are the cell's, nothing is replaced: other threads may run the same cell.
        """
        present = tensors_of(self.cell)
        others = {name: tensor for name, tensor in tensors.items() if present[name] is not tensor}
        if not others:
            return call(drive, state)
        return functional_call(self.cell, others, (drive, state))  # type: ignore[arg-type]


def _set_modes(modules: list[nn.Module], present: list[bool], wanted: list[bool]) -> None:
    for module, now, then in zip(modules, present, wanted, strict=True):
        if now != then:
            module.training = then
