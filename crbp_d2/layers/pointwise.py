"""The 1 x 1 convolutions of the cells' gates.

N: batch; C, K: input and output channels; H x W: image size.
"""

import torch
from torch import Tensor, nn

from crbp_d2.tracing import is_traced

from .channels_last import is_channels_last

# Below, torch leaves a 1 x 1 convolution in one thread to a product of matrices that takes up to twice as long.
FULL_BATCH = 16
# Weights below which such a product takes less time than a convolution, which is made for many channels.
FEW_WEIGHTS = 32 * 32
PRECISIONS = (torch.float32, torch.float64)


class PointwiseConv2d(nn.Conv2d):
    """A 1 x 1 convolution by whichever way of computing it is the fastest.

    Few images in the channels-last layout are computed as many images of one row each, images of few channels in the
    other layout as products of matrices.
    """

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True):
        super().__init__(in_channels, out_channels, kernel_size=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """x: N x C x H x W; the result: N x K x H x W."""
        if is_traced(x) or x.device.type != "cpu" or x.dim() != 4 or not x.numel():
            return super().forward(x)
        if is_channels_last(x):
            return self._by_rows(x) if len(x) < FULL_BATCH else super().forward(x)
        if not self._has_few_channels(x):
            return super().forward(x)
        # Read once: a parametrization may draw another weight at every look.
        weight, bias = self.weight, self.bias
        if weight.dtype != x.dtype:
            return self._conv_forward(x, weight, bias)
        pixels, matrices = x.flatten(2), weight.flatten(1).expand(len(x), -1, -1)
        y = matrices @ pixels if bias is None else torch.baddbmm(bias[:, None], matrices, pixels)
        return y.unflatten(2, x.shape[2:])

    def _by_rows(self, x: Tensor) -> Tensor:
        count, channels, height, width = x.shape
        # N x H x W x C is how it lies in memory: these are views.
        rows = x.permute(0, 2, 3, 1).view(count * height, 1, width, channels).permute(0, 3, 1, 2)
        y = super().forward(rows)
        return y.permute(0, 2, 3, 1).reshape(count, height, width, -1).permute(0, 3, 1, 2)

    def _has_few_channels(self, x: Tensor) -> bool:
        """Whether a product suits images; what does not fit is left to torch's own words."""
        if x.shape[1] != self.in_channels or self.in_channels * self.out_channels >= FEW_WEIGHTS:
            return False
        return x.dtype in PRECISIONS and x.is_contiguous() and not torch.is_autocast_enabled("cpu")
