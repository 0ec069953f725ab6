"""One step of a cell in a run: what it may do with its state, and what it has to return.

N: samples of the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from crbp_d2.layers.tensors import widen
from crbp_d2.utils.errors import ContradictionError
from crbp_d2.utils.tracing import is_traced

from .interfaces import Cell
from .state import State, describe


class CellStep:
    """state -> state for the steps of one run, with the drive held fixed.

    A solver needs the state it gave. So the first step gets a copy; of a cell that writes into it, so does every other.

    Args:
        cell: the module, for its parameters and for messages.
        drive: N x ....
        inference: see Step.
        call: runs the cell; None: the module itself.
        initial: the cell's initial state, where the run starts from it: without a graph its step is the cell's
            `first_step`, if it has one.

    Raises:
        ValueError: (when called) the cell returns no state, or one of another shape than it was given.
    """

    def __init__(
        self,
        cell: Cell,
        drive: Tensor,
        inference: bool = False,
        call: Callable[[Tensor, State], State] | None = None,
        initial: State | None = None,
    ):
        self.cell = cell
        self.drive = drive
        self.inference = inference
        self.call = call or cell
        self.initial = initial
        self._writes: bool | None = None

    def __call__(self, state: State) -> State:
        if self._starts_with(state):
            given = self.cell.first_step(self.drive, state)  # type: ignore[attr-defined]
        elif self._writes is False:
            given = self.call(self.drive, state)
        else:
            copy = tuple(part.clone() for part in state)
            given = self.call(self.drive, copy)
            self._writes = self._writes or any(map(_written_to, copy, state))
        new = checked_state(given, self.cell)
        if [part.shape for part in new] != [part.shape for part in state]:
            raise ValueError(f"Recurrence: the cell maps a state of {describe(state)} to one of {describe(new)}")
        # Under autocast a step must not change the state's precision, or J would not be square.
        return tuple(part.to(old.dtype) for part, old in zip(new, state, strict=True))

    def subset(self, samples: Tensor) -> CellStep:
        """The step of some samples alone, by their indices."""
        return self.through(self.call, self.drive[samples])

    def through(self, call: Callable[[Tensor, State], State], drive: Tensor) -> CellStep:
        """The step of the same cell by another call, on another drive."""
        step = CellStep(self.cell, drive, self.inference, call, self.initial)
        step._writes = self._writes
        return step

    def _starts_with(self, state: State) -> bool:
        """Whether `state` is the initial state or that of some samples, and its step has no graph."""
        if self.initial is None or torch.is_grad_enabled():
            return False
        if is_traced(self.drive) or torch.is_autocast_enabled(self.drive.device.type):
            return False
        # All steps but one end here.
        return all(map(_is_of, state, self.initial)) and has_first_step(self.cell)


def has_first_step(cell: Cell) -> bool:
    """Whether a `first_step` of the cell gives what its forward gives of its initial state.

    Not where a class that derives from the one with the `first_step` has another forward or initial state, nor where
    hooks or the instance itself change what a call does.
    """
    if not hasattr(cell, "first_step") or vars(cell).keys() & {"forward", "initial_state"}:
        return False
    if isinstance(cell, nn.Module) and (cell._forward_hooks or cell._forward_pre_hooks):
        return False
    owners = [next((c for c in type(cell).__mro__ if name in vars(c)), object)
              for name in ("first_step", "forward", "initial_state")]  # fmt: skip
    return all(issubclass(owners[0], owner) for owner in owners[1:])


def begin(cell: Cell, drive: Tensor, state: State | None) -> tuple[Tensor, State]:
    """The drive of a run and the state that it starts from: the one given, or the cell's initial one.

    Raises:
        ValueError: a drive that is no tensor; a drive or state of another shape than the cell's.
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
            f"Recurrence: a state of {type(cell).__name__} must be of tensors N x ... with the samples of the drive "
            f"({describe((drive,))}) as their first dimension, got {describe(initial)}"
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
    """A copy of what was left by inference mode and could not enter a graph."""
    return tensor.clone() if torch.is_grad_enabled() and tensor.is_inference() else tensor


def checked_state(state: object, cell: Cell) -> State:
    """A state as a tuple.

    Raises:
        ValueError: it is no tuple or list of floating-point tensors.
    """
    name = type(cell).__name__
    if not isinstance(state, tuple | list):
        raise ValueError(f"Recurrence: a state of {name} must be a tuple of tensors, got {type(state).__name__}")
    if not state:
        raise ValueError(
            f"Recurrence: a state of {name} must be a tuple of tensors, got an empty {type(state).__name__}"
        )
    for part in state:
        if not isinstance(part, Tensor):
            raise ValueError(
                f"Recurrence: a state of {name} must be a tuple of tensors, got a {type(state).__name__} that holds "
                f"{type(part).__name__}"
            )
        if not part.is_floating_point():
            raise ValueError(f"Recurrence: a state of {name} must be of floating-point tensors, got {part.dtype}")
    return tuple(state)


def mixing_norms(cell: Cell) -> list[str]:
    """Class names of the cell's batch norms, which make the result of a sample depend on the others of its batch."""
    parts = cell.modules() if isinstance(cell, nn.Module) else ()
    return [type(part).__name__ for part in parts if isinstance(part, _BatchNorm)]


def check_samples_apart(cell: Cell, owner: str, **settings: object) -> None:
    """Check that no batch norm makes the result of a sample depend on the others of its batch.

    Args:
        settings: what needs that.

    Raises:
        ContradictionError: names the settings, and `norm`.
    """
    if mixing := mixing_norms(cell):
        raise ContradictionError(
            {**settings, "norm": mixing[0]},
            f"{mixing[0]} mixes the samples of a batch, so that results would depend on the others; use another norm",
            owner,
        )


def trainable(cell: Cell) -> Mapping[str, Tensor]:
    """The cell's parameters that require a gradient, by name."""
    named = cell.named_parameters() if isinstance(cell, nn.Module) else ()
    return {name: parameter for name, parameter in named if parameter.requires_grad}


def _is_of(view: Tensor, whole: Tensor) -> bool:
    """Whether a tensor is another one or a view of it."""
    return view.untyped_storage().data_ptr() == whole.untyped_storage().data_ptr()


@torch.no_grad()
def _written_to(copy: Tensor, state: Tensor) -> bool:
    # Tensors of inference mode count no versions; a copy starts with none.
    return not torch.equal(copy, state) if copy.is_inference() else copy._version > 0


# Elements of one tensor of the state in a block: 4 MiB in float32.
BLOCK = 2**20


def block_sizes(drive: Tensor) -> list[int]:
    """Samples of each block, as equal as can be: a function of the shape alone."""
    count = len(drive)
    blocks = max(1, min(count, -(-drive.numel() // BLOCK)))
    return [count // blocks + (k < count % blocks) for k in range(blocks)]


def in_blocks(step: Callable[[Tensor, State], State], norm: nn.Module, drive: Tensor, state: State) -> State:
    """step(drive, state); on a CPU and without a graph in blocks, where `norm` does not mix samples."""
    if torch.is_grad_enabled() or drive.device.type != "cpu" or is_traced(drive) or isinstance(norm, _BatchNorm):
        return step(drive, state)
    sizes = block_sizes(drive)
    if len(sizes) <= 1:
        return step(drive, state)
    parts = [part.split(sizes) for part in state]
    blocks = [step(d, tuple(part[k] for part in parts)) for k, d in enumerate(drive.split(sizes))]
    return tuple(torch.cat(parts) for parts in zip(*blocks, strict=True))
