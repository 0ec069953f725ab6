"""Norms of the cells; they are applied at every step, so they keep no running averages."""

from collections.abc import Callable

from torch import nn

from crbp_d2.utils.errors import check_whole
from crbp_d2.utils.table import Table


def group_count(channels: int, most: int = 32) -> int:
    """The largest divisor of `channels` that is at most `most`."""
    return max(groups for groups in range(1, most + 1) if channels % groups == 0)


NORMS: Table[Callable[[int], nn.Module]] = Table(
    "norm",
    {
        "BN": lambda channels: nn.BatchNorm2d(channels, eps=1e-3, track_running_stats=False),
        "GN": lambda channels: nn.GroupNorm(group_count(channels), channels),
        "LN": lambda channels: nn.GroupNorm(1, channels),
        "none": lambda channels: nn.Identity(),
    },
)


def build_norm(name: str, channels: int, scale: float = 0.1) -> nn.Module:
    """A norm over N x channels x H x W.

    Args:
        name: "BN" (batch statistics in training and in evaluation, eps 1e-3), "GN" (the largest
            number of groups up to 32 that divides the channels), "LN" (one group), "none".
        channels: C.
        scale: initial value of the weight.

    Raises:
        SettingError: an unknown name, channels that are not a positive integer.
    """
    check_whole("build_norm", channels=channels)
    norm = NORMS[name](channels)
    if getattr(norm, "weight", None) is not None:
        nn.init.constant_(norm.weight, scale)
    return norm
