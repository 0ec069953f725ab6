"""Chrono initialization of the gates' biases."""

import torch
from torch import Tensor, nn

from crbp_d2.utils.errors import check_whole


def chrono_bias(channels: int, timescale: int) -> Tensor:
    """log u with u uniform in (1, timescale - 1), one value a channel (Tallec & Ollivier 2018, ICLR).

    A gate with bias -log u passes 1/(1 + u) of its input, so that the time constants of a cell's channels
    are spread up to `timescale` steps. Zero for timescale <= 2: all gates start half open.

    Raises:
        ValueError: channels or timescale is not a whole number of at least 1.
    """
    check_whole("chrono_bias", channels=channels, timescale=timescale)
    return torch.empty(channels).uniform_(1, max(timescale - 1, 1)).log()


# "zero", or "drive": where the drive leads while the connections within the state see zeros.
STARTS = ("zero", "drive")


def of_zeros(norm: nn.Module, drive: Tensor, channels: int) -> Tensor:
    """What a norm makes of a convolution of zeros, C x 1 x 1: its bias."""
    return norm(drive.new_zeros(2, channels, 2, 2))[0, :, :1, :1]
