"""The 1 x 1 convolutions of the cells' gates.

N: batch; C, K: input and output channels; H x W: image size.
"""

from torch import Tensor, nn

from crbp_d2.tracing import is_traced

from .channels_last import is_channels_last

# Below, torch leaves a 1 x 1 convolution in one thread to a product of matrices that takes up to twice as long.
FULL_BATCH = 16


class PointwiseConv2d(nn.Conv2d):
    """A 1 x 1 convolution; few images in the channels-last layout are computed as many images of one row each."""

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True):
        super().__init__(in_channels, out_channels, kernel_size=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """x: N x C x H x W; the result: N x K x H x W."""
        if not self._has_rows(x):
            return super().forward(x)
        count, channels, height, width = x.shape
        # N x H x W x C is how it lies in memory: these are views.
        rows = x.permute(0, 2, 3, 1).view(count * height, 1, width, channels).permute(0, 3, 1, 2)
        y = super().forward(rows)
        return y.permute(0, 2, 3, 1).reshape(count, height, width, -1).permute(0, 3, 1, 2)

    @staticmethod
    def _has_rows(x: Tensor) -> bool:
        if is_traced(x) or x.device.type != "cpu":
            return False
        return is_channels_last(x) and 0 < len(x) < FULL_BATCH
