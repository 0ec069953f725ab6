"""One step of a cell in a run: what it may do with its state, and what it has to return."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .state import State, describe


class CellStep:
    """(drive, state) -> state for the steps of one run.

    A solver needs the state it gave. So the first step gets a copy; of a cell that writes into it, so does every other.

    Args:
        cell: for messages.
        call: the cell, or what runs it.

    Raises:
        ValueError: (when called) the cell returns no state, or one of another shape than it was given.
    """

    def __init__(self, cell: nn.Module, call: Callable[[Tensor, State], State]):
        self.name = type(cell).__name__
        self.call = call
        self.writes: bool | None = None

    def __call__(self, drive: Tensor, state: State) -> State:
        if self.writes is False:
            new = self.call(drive, state)
        else:
            copy = tuple(part.clone() for part in state)
            new = self.call(drive, copy)
            self.writes = self.writes or any(map(_written_to, copy, state))
        new = checked_state(new, self.name)
        if [part.shape for part in new] != [part.shape for part in state]:
            raise ValueError(f"Recurrence: the cell maps a state of {describe(state)} to one of {describe(new)}")
        # Under autocast a step must not change the state's precision, or J would not be square.
        return tuple(part.to(old.dtype) for part, old in zip(new, state, strict=True))


def checked_state(state: object, cell: str) -> State:
    """A state as a tuple.

    Raises:
        ValueError: it is no tuple or list of floating-point tensors.
    """
    if not isinstance(state, tuple | list) or not state or not all(isinstance(part, Tensor) for part in state):
        raise ValueError(f"Recurrence: a state of {cell} must be a tuple of tensors, got {type(state).__name__}")
    for part in state:
        if not part.is_floating_point():
            raise ValueError(f"Recurrence: a state of {cell} must be of floating-point tensors, got {part.dtype}")
    return tuple(state)


@torch.no_grad()
def _written_to(copy: Tensor, state: Tensor) -> bool:
    # Tensors of inference mode count no versions; a copy starts with none.
    return not torch.equal(copy, state) if copy.is_inference() else copy._version > 0
