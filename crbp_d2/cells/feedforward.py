"""The feedforward control of the Pathfinder experiments.

N: batch; C: channels; H x W: image size; E: kernel size.
"""

from torch import Tensor, nn

from crbp_d2.layers.convolution import HorizontalConv2d
from crbp_d2.layers.norms import build_norm
from crbp_d2.utils.errors import check_whole


class FeedforwardControl(nn.Sequential):
    """A stack of layers in place of a recurrence (FF6 of Linsley et al. 2020).

        x' = relu( norm(W x) )

    with a separate E x E convolution W in every layer, which has a bias only without a norm.

    Args:
        channels: C, that of the drive and of every layer.
        kernel_size: E, odd.
        num_layers: number of layers, 6 in the paper.
        norm: name for `build_norm`.

    Raises:
        SettingError: invalid channels, kernel size, number of layers or norm.
    """

    def __init__(self, channels: int, kernel_size: int = 15, num_layers: int = 6, norm: str = "BN"):
        check_whole("FeedforwardControl", channels=channels, num_layers=num_layers)
        layers: list[nn.Module] = []
        for _ in range(num_layers):
            convolution = HorizontalConv2d(channels, channels, kernel_size, bias=norm == "none")
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
            layers += [convolution, build_norm(norm, channels, scale=1.0), nn.ReLU()]
        super().__init__(*layers)
        self.channels = channels

    def forward(self, drive: Tensor) -> Tensor:
        """drive: N x C x H x W; the result has the same shape."""
        return super().forward(drive)
