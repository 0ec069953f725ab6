"""Recurrent cells: what one step computes; pure torch."""

from torch import nn

from .gala_hgru import GalaHGRUCell

CELLS: dict[str, type[nn.Module]] = {"GalaHGRUCell": GalaHGRUCell}


def build_cell(name: str, channels: int, **settings) -> nn.Module:
    """The cell of a name in CELLS.

    Raises:
        ValueError: an unknown name, or a setting the cell refuses.
    """
    if name not in CELLS:
        raise ValueError(f"unknown cell {name!r}; known: {', '.join(sorted(CELLS))}")
    return CELLS[name](channels, **settings)


__all__ = ["CELLS", "GalaHGRUCell", "build_cell"]
