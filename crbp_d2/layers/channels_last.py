"""Direct convolution in the channels-last layout, for CPUs where that is faster than the usual one.

With few channels, oneDNN's kernels for the usual layout convert it and fill blocks of channels with zeros. Around
one convolution both conversions are paid for; the rest of a cell is left in the usual layout, in which the gains
of its channels broadcast faster.

N: batch; C, K: input and output channels; H x W: image size; E: kernel size, odd.
"""

from torch import Tensor, channels_last
from torch.nn import functional as F
from torch.nn.grad import conv2d_weight

from .bilinear import bilinear
from .cache import WeightTransform, outside_autograd


class RelaidWeight(WeightTransform):
    """A weight in the channels-last layout.

    Attributes:
        values: K x C x E x E.
    """

    def __init__(self, weight: Tensor):
        super().__init__(weight)
        with outside_autograd():
            self.values = self.snapshot.contiguous(memory_format=channels_last)


def correlate(x: Tensor, weight: Tensor) -> Tensor:
    """The convolution of F.conv2d with padding E//2, its gradients by torch's own in the usual layout.

    Args:
        x: N x C x H x W.
        weight: K x C x E x E.

    Returns:
        N x K x H x W.
    """
    padding = weight.shape[-1] // 2
    return bilinear(
        x,
        weight,
        lambda: F.conv2d(x.contiguous(memory_format=channels_last), weight, padding=padding).contiguous(),
        lambda g, weight: F.conv_transpose2d(g, weight, padding=padding),
        lambda g, x: conv2d_weight(x, weight.shape, g, padding=padding),
    )
