"""The state that a run starts from, and what a state of zeros spares its first step.

N: samples of the batch; C: channels.
"""

from torch import Tensor, nn

# "zero", or "drive": where the drive leads while the connections within the state see zeros.
STARTS = ("zero", "drive")


def of_zeros(norm: nn.Module, drive: Tensor, channels: int) -> Tensor:
    """What a norm makes of a convolution of zeros, C x 1 x 1: its bias."""
    return norm(drive.new_zeros(2, channels, 2, 2))[0, :, :1, :1]
