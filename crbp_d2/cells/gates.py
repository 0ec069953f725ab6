"""What the cells' gates share: initial biases and the check of kernel sizes."""

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


def check_kernel_size(kernel_size: int) -> None:
    """Zero padding keeps the size only for odd kernels.

    Raises:
        ValueError: an even or non-positive kernel size.
    """
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size must be an odd number such as 3 or 15, got {kernel_size}")
