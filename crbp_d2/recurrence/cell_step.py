"""One step of a cell in a run: its state, its drive, and what it has to return.

N: samples of the batch.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from crbp_d2.layers.cache import serves_many_products
from crbp_d2.layers.tensors import widen
from crbp_d2.utils.compat import eager_call
from crbp_d2.utils.errors import ContradictionError

from .interfaces import Cell
from .state import State, checked_state, describe


class CellStep:
    """state -> state for the steps of one run, with the drive held fixed.

    A solver needs the state that it gave, so the first step gets a copy; every other one too if the cell writes into
    its state. A compiled cell runs eagerly where its graph will serve several products, which torch.compile excludes.

    Args:
        cell: the module.
        drive: N x ....
        inference: see Step.

    Raises:
        ValueError: (when called) the cell returns an invalid state, or one of another shape than it was given.
    """

    def __init__(self, cell: Cell, drive: Tensor, inference: bool = False):
        self.cell = cell
        self.drive = drive
        self.inference = inference
        self._writes: bool | None = None

    def __call__(self, state: State) -> State:
        if self._writes is False:
            given = self._called(state)
        else:
            copy = tuple(part.clone() for part in state)
            given = self._called(copy)
            # Tensors of inference mode do not count writes.
            self._writes = self._writes or any(part.is_inference() or part._version > 0 for part in copy)
        new = checked_state(given, self.cell)
        if [part.shape for part in new] != [part.shape for part in state]:
            raise ValueError(f"Recurrence: the cell maps a state of {describe(state)} to one of {describe(new)}")
        # Under autocast a step must not change the state's precision, or J would not be square.
        return tuple(part.to(old.dtype) for part, old in zip(new, state, strict=True))

    def subset(self, samples: Tensor) -> CellStep:
        """The step of some of the samples, by their indices."""
        step = CellStep(self.cell, self.drive.index_select(0, samples), self.inference)
        step._writes = self._writes
        return step

    def _called(self, state: State) -> object:
        return (eager_call(self.cell) if serves_many_products() else self.cell)(self.drive, state)


def begin(cell: Cell, drive: Tensor, state: State | None) -> tuple[Tensor, State]:
    """The drive of a run and the state that it starts from: the one given, or the cell's initial one.

    Raises:
        ValueError: a drive that is not a tensor; a drive or state of another shape than the cell's.
    """
    if not isinstance(drive, Tensor):
        raise ValueError(f"Recurrence: the drive must be a tensor, N x ..., got {type(drive).__name__}")
    drive = _outside_inference_mode(drive)
    channels = getattr(cell, "channels", None)
    if channels is not None and (drive.dim() < 2 or drive.shape[1] != channels):
        raise ValueError(
            f"Recurrence: the drive is {describe((drive,))}, but {type(cell).__name__} takes N x {channels} x ..."
        )
    initial = checked_state(cell.initial_state(drive), cell)
    if not drive.dim() or any(not part.dim() or part.shape[0] != drive.shape[0] for part in initial):
        raise ValueError(
            f"Recurrence: a state of {type(cell).__name__} must consist of tensors N x ... with the samples of the "
            f"drive ({describe((drive,))}) as their first dimension, got {describe(initial)}"
        )
    if state is None:
        return drive, _as_start(initial, drive)
    state = checked_state(state, cell)
    if [part.shape for part in state] != [part.shape for part in initial]:
        raise ValueError(
            f"Recurrence: the state is {describe(state)}, but a drive of {describe((drive,))} takes one of "
            f"{describe(initial)}"
        )
    return drive, _as_start(state, drive)


def _as_start(state: State, drive: Tensor) -> State:
    # Under autocast the state keeps the sum of all steps, in which small ones of half precision would be lost.
    kind = drive.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        state = tuple(widen(part) for part in state)
    return tuple(_outside_inference_mode(part) for part in state)


def _outside_inference_mode(tensor: Tensor) -> Tensor:
    """A copy of a tensor made in inference mode, which could not enter a graph."""
    return tensor.clone() if torch.is_grad_enabled() and tensor.is_inference() else tensor


def requires_gradient(cell: Cell, given: Iterable[object]) -> bool:
    """Return whether a gradient of a run may be needed; always True for a cell that is not a module.

    Args:
        given: drive and state.
    """
    if any(map(_holds_gradient, given)) or not isinstance(cell, nn.Module):
        return True
    return any(_holds_gradient(vars(module)) for module in cell.modules())


def _holds_gradient(value: object) -> bool:
    if isinstance(value, Tensor):
        return value.requires_grad
    if isinstance(value, dict):
        return any(map(_holds_gradient, value.values()))
    return isinstance(value, list | tuple) and any(map(_holds_gradient, value))


def mixing_norms(cell: Cell) -> list[str]:
    """Class names of the cell's batch norms, which make the result of a sample depend on the others of its batch."""
    parts = cell.modules() if isinstance(cell, nn.Module) else ()
    return [type(part).__name__ for part in parts if isinstance(part, _BatchNorm)]


def check_samples_apart(cell: Cell, owner: str, **settings: object) -> None:
    """Check that no batch norm makes the result of a sample depend on the others of its batch.

    Args:
        settings: the settings that exclude one.

    Raises:
        ContradictionError: names the settings, and `norm`.
    """
    if mixing := mixing_norms(cell):
        raise ContradictionError(
            {**settings, "norm": mixing[0]},
            f"{mixing[0]} mixes the samples of a batch, so that results would depend on the others; use another norm",
            owner,
        )
