"""Initialization of the cells: settings that all have, gate biases, gains.

N: batch; C: channels; H x W: image size.
"""

import torch
from torch import Tensor, nn

from crbp_d2.utils.errors import check_choice, check_whole

# h_0 of a run: zeros, or where the drive leads while the connections within the state are given zeros.
STARTS = ("zero", "drive")


def check_cell(owner: str, channels: int, timescale: int, start: str) -> None:
    """Check the settings that all cells have.

    Raises:
        SettingError: a value outside the allowed ones.
    """
    check_whole(owner, channels=channels, timescale=timescale)
    check_choice(owner, STARTS, start=start)


def chrono_bias(channels: int, timescale: int) -> Tensor:
    """log u with u uniform in (1, timescale - 1), one value a channel (Tallec & Ollivier 2018, ICLR).

    A gate with bias -log u passes 1/(1 + u) of its input, so that the time constants of a cell's channels
    are spread up to `timescale` steps. Zero for timescale <= 2: all gates start half open.

    Raises:
        SettingError: channels or timescale is not a positive integer.
    """
    check_whole("chrono_bias", channels=channels, timescale=timescale)
    return torch.empty(channels).uniform_(1, max(timescale - 1, 1)).log()


def gain(channels: int, value: float) -> nn.Parameter:
    """A factor for each channel, C x 1 x 1."""
    return nn.Parameter(torch.full((channels, 1, 1), value))
