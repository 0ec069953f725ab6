"""What the cells' gates share: their initial biases."""

import torch
from torch import Tensor


def chronos_bias(channels: int, timescale: int) -> Tensor:
    """Chronos initialisation: log u with u uniform in (1, timescale - 1), one value a channel.

    A gate with bias -log u passes about 1/(1 + u) of its input, so the cell starts with time
    constants spread up to `timescale` steps (Tallec & Ollivier 2018). Zero for timescale <= 2.

    Raises:
        ValueError: timescale < 1.
    """
    if timescale < 1:
        raise ValueError(f"timescale must be at least 1 step, got {timescale}")
    return torch.empty(channels).uniform_(1, max(timescale - 1, 1)).log()
