"""Pieces of work by name, through names that crbp_d2 has had from its beginning.

Run as a script with another version of crbp_d2 first on the path, it does what its standard input names, so
that two versions can be timed in turn (see before.py). N: samples; C: channels; H x W: image size.
"""

import sys
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from crbp_d2.cells import ConvLSTMCell, GalaHGRUCell, HGRUCell
from crbp_d2.recurrence import learning_rule

STEPS, TERMS = 20, 15
ACCELERATED = {"solver": "Anderson", "steps": 7, "max_steps": 7, "num_terms": 3}


def _mask(samples: int, channels: int = 256) -> tuple[nn.Module, Tensor]:
    """The cell of the mask head, its drive in the layout in which the head of the version hands it over."""
    layout = torch.contiguous_format
    for module in ("crbp_d2.layers.tensors", "crbp_d2.layers.cost_model"):
        preferred = getattr(import_module(module), "preferred_layout", None) if find_spec(module) else None
        layout = preferred(channels, "cpu") if preferred else layout
    return GalaHGRUCell(channels), torch.randn(samples, channels, 14, 14).contiguous(memory_format=layout)


def _hgru(samples: int, size: int, kernel_size: int = 15) -> tuple[nn.Module, Tensor]:
    return HGRUCell(25, kernel_size), torch.randn(samples, 25, size, size).square()


def _lstm(samples: int, size: int) -> tuple[nn.Module, Tensor]:
    return ConvLSTMCell(25, 3), torch.randn(samples, 25, size, size)


def _training(build: Callable[[], tuple[nn.Module, Tensor]], rule: str, settings: dict) -> Callable[[], None]:
    cell, drive = build()
    recurrence = learning_rule(rule, cell, **settings)
    weights = torch.linspace(0.5, 2, drive.numel()).view_as(drive)

    def step() -> None:
        cell.zero_grad(set_to_none=True)
        output = recurrence(drive)
        ((weights * output.state[0]).sin().mean() + output.penalty).backward()

    return step


def _inference(build: Callable[[], tuple[nn.Module, Tensor]], settings: dict) -> Callable[[], None]:
    cell, drive = build()
    recurrence = learning_rule("crbp", cell, **settings).eval()
    return torch.no_grad()(partial(recurrence, drive))


_FULL = {"steps": STEPS, "num_terms": TERMS}
_TO_TOLERANCE = {"steps": 40, "max_steps": 40, "tol": 1e-2}
_MASK, _PATHFINDER = partial(_mask, 8), partial(_hgru, 4, 150)

# name -> what makes the work
WORKS: dict[str, Callable[[], Callable[[], None]]] = {
    "mask cell, 8 RoIs, crbp": partial(_training, _MASK, "crbp", _FULL),
    "mask cell, 8 RoIs, crbp, accelerated": partial(_training, _MASK, "crbp", ACCELERATED),
    "mask cell, 8 RoIs, rbp": partial(_training, _MASK, "rbp", _FULL),
    "mask cell, 8 RoIs, bptt, 5 steps": partial(_training, _MASK, "bptt", {"steps": 5}),
    "mask cell, 8 RoIs, bptt": partial(_training, _MASK, "bptt", {"steps": STEPS}),
    "mask cell, 8 RoIs, tbptt": partial(_training, _MASK, "tbptt", {"steps": STEPS, "truncation": 3}),
    "mask cell, 8 RoIs, deq": partial(_training, _MASK, "deq", _TO_TOLERANCE),
    "mask cell of 64 channels, 8 RoIs, deq": partial(_training, partial(_mask, 8, 64), "deq", _TO_TOLERANCE),
    "mask cell, 2 RoIs, crbp": partial(_training, partial(_mask, 2), "crbp", _FULL),
    "mask cell, 64 RoIs, crbp, accelerated": partial(_training, partial(_mask, 64), "crbp", ACCELERATED),
    "mask cell, 64 RoIs, inference": partial(_inference, partial(_mask, 64), _FULL),
    "mask cell of 32 channels, 32 RoIs, early exit": partial(
        _inference, partial(_mask, 32, 32), {"steps": 10, "early_stop": 0.02}
    ),
    "hGRU, 4 x 150 px, crbp": partial(_training, _PATHFINDER, "crbp", _FULL),
    "hGRU, 4 x 150 px, crbp, accelerated": partial(_training, _PATHFINDER, "crbp", ACCELERATED),
    "hGRU, 4 x 150 px, bptt, 5 steps": partial(_training, _PATHFINDER, "bptt", {"steps": 5}),
    "hGRU, 4 x 150 px, inference": partial(_inference, _PATHFINDER, _FULL),
    "hGRU, 1 x 64 px, crbp": partial(_training, partial(_hgru, 1, 64), "crbp", _FULL),
    "hGRU, 8 x 100 px, crbp": partial(_training, partial(_hgru, 8, 100), "crbp", _FULL),
    "hGRU, 32 x 48 px, bptt, 6 steps": partial(_training, partial(_hgru, 32, 48), "bptt", {"steps": 6}),
    "hGRU, 3 x 3, 2 x 100 px, crbp": partial(_training, partial(_hgru, 2, 100, 3), "crbp", _FULL),
    "hGRU, 7 x 7, 2 x 100 px, crbp": partial(_training, partial(_hgru, 2, 100, 7), "crbp", _FULL),
    "ConvLSTM, 4 x 100 px, crbp": partial(_training, partial(_lstm, 4, 100), "crbp", _FULL),
    "ConvLSTM, 4 x 100 px, bptt, 5 steps": partial(_training, partial(_lstm, 4, 100), "bptt", {"steps": 5}),
}


def serve() -> None:
    """For every name on a line of standard input: a line with the processor's seconds of that work, done once."""
    torch.set_num_threads(1)
    # As tools/benchmarks/__main__.py: else freed memory goes back to the system at once.
    torch.empty(8_000_000).zero_()
    ready: dict[str, Callable[[], None]] = {}
    for line in sys.stdin:
        name = line.strip()
        if name not in ready:
            torch.manual_seed(0)
            ready = {name: WORKS[name]()}
            ready[name]()
        start = time.process_time()
        ready[name]()
        print(time.process_time() - start, flush=True)


if __name__ == "__main__":
    serve()
