"""The horizontal convolutions of the cells."""

from torch import nn


def horizontal_convolution(in_channels: int, out_channels: int, kernel_size: int, bias: bool = False) -> nn.Conv2d:
    """A convolution over space with zero padding that keeps the size.

    Args:
        kernel_size: E of the E x E kernel, odd.

    Raises:
        ValueError: an even or non-positive kernel size.
    """
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size must be an odd number such as 3 or 15, got {kernel_size}")
    return nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=bias)
