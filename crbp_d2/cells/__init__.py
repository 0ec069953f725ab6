"""Recurrent cells: what one step computes; pure torch."""

from torch import nn

from crbp_d2.recurrence.registry import Table

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


def build_cell(name: str, channels: int, **settings) -> nn.Module:
    """The cell of a name in CELLS.

    Raises:
        ValueError: an unknown name, or a setting that is invalid for the cell.
    """
    return CELLS[name](channels, **settings)


__all__ = [
    "CELLS",
    "ConvGRUCell",
    "ConvLSTMCell",
    "FeedforwardControl",
    "GalaHGRUCell",
    "HGRUCell",
    "build_cell",
]
