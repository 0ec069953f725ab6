"""Chrono initialization of the gates' biases."""

import torch
from torch import Tensor

from crbp_d2.checks import check_whole


def chrono_bias(channels: int, timescale: int) -> Tensor:
    """log u with u uniform in (1, timescale - 1), one value a channel (Tallec & Ollivier 2018, ICLR).

    A gate with bias -log u passes 1/(1 + u) of its input, so that the time constants of a cell's channels
    are spread up to `timescale` steps. Zero for timescale <= 2: all gates start half open.

    Raises:
        ValueError: channels or timescale is not a whole number of at least 1.
    """
    check_whole("chrono_bias", channels=channels, timescale=timescale)
    return torch.empty(channels).uniform_(1, max(timescale - 1, 1)).log()
