"""The feedforward control of the Pathfinder experiments."""

from torch import Tensor, nn

from crbp_d2.layers.convolution import horizontal_convolution
from crbp_d2.layers.norms import build_norm
from crbp_d2.utils.errors import check_whole


class FeedforwardControl(nn.Sequential):
    """A stack of convolution, norm and relu in place of a recurrence (FF6 of Linsley et al. 2020).

    Args:
        channels: C of the drive and of every layer.
        kernel_size: E of the E x E kernels, odd.
        num_layers: 6 in the paper.
        norm: name for `build_norm`.

    Raises:
        ValueError: channels, kernel size, number of layers or norm outside these.
    """

    def __init__(self, channels: int, kernel_size: int = 15, num_layers: int = 6, norm: str = "BN"):
        check_whole("FeedforwardControl", channels=channels, num_layers=num_layers)
        layers: list[nn.Module] = []
        for _ in range(num_layers):
            convolution = horizontal_convolution(channels, channels, kernel_size, bias=norm == "none")
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
            layers += [convolution, build_norm(norm, channels, scale=1.0), nn.ReLU()]
        super().__init__(*layers)
        self.channels = channels

    def forward(self, drive: Tensor) -> Tensor:
        """drive: N x C x H x W; so is the result."""
        return super().forward(drive)
