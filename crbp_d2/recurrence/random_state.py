"""The state of torch's global generators, kept to draw the same numbers again."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class RandomState:
    """Of the CPU and, elsewhere, of the device that a run is on."""

    def __init__(self, device: torch.device):
        self.device = None if device.type == "cpu" else device
        self._kept: tuple[Tensor, Tensor | None] | None = None

    def keep(self) -> None:
        """Remember the state as it is now, in place of an earlier one."""
        own = None
        if self.device is not None:
            own = torch.get_device_module(self.device).get_rng_state(self.device)
        self._kept = torch.get_rng_state(), own

    @contextmanager
    def restored(self) -> Iterator[None]:
        """The state that was kept; afterwards the present one again."""
        if self._kept is None:
            yield
            return
        present = RandomState(self.device or torch.device("cpu"))
        present.keep()
        self._set()
        try:
            yield
        finally:
            present._set()

    def _set(self) -> None:
        assert self._kept is not None
        cpu, own = self._kept
        torch.set_rng_state(cpu)
        if self.device is not None:
            torch.get_device_module(self.device).set_rng_state(own, self.device)
