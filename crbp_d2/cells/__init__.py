"""Recurrent cells: what one step computes; pure torch."""

import inspect
from typing import Any

from torch import nn

from crbp_d2.utils.errors import ContradictionError
from crbp_d2.utils.table import Table

from .conv_gru import ConvGRUCell
from .conv_lstm import ConvLSTMCell
from .feedforward import FeedforwardControl
from .gala_hgru import GalaHGRUCell
from .hgru import HGRUCell

CELLS: Table[type[nn.Module]] = Table(
    "cell",
    {
        "ConvGRUCell": ConvGRUCell,
        "ConvLSTMCell": ConvLSTMCell,
        "GalaHGRUCell": GalaHGRUCell,
        "HGRUCell": HGRUCell,
    },
)


def build_cell(name: str, channels: int, **settings: Any) -> nn.Module:
    """The cell of a name in CELLS.

    Args:
        settings: arguments of the cell's constructor that differ from its defaults.

    Raises:
        SettingError: an unknown name, or a value that is invalid for the cell.
        ContradictionError: a setting that the cell does not have.
    """
    cell = CELLS[name]
    for setting, value in settings.items():
        if not takes(name, setting):
            raise ContradictionError({setting: value, "cell": name}, f"{cell.__name__} has no {setting}; leave it out")
    return cell(channels, **settings)


def takes(name: str, setting: str) -> bool:
    """Return whether the constructor of the cell of this name has an argument `setting`."""
    parameters = inspect.signature(CELLS[name]).parameters.values()
    return any(p.name == setting or p.kind is p.VAR_KEYWORD for p in parameters)


__all__ = [
    "CELLS",
    "ConvGRUCell",
    "ConvLSTMCell",
    "FeedforwardControl",
    "GalaHGRUCell",
    "HGRUCell",
    "build_cell",
    "takes",
]
