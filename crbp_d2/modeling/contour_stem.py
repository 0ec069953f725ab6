"""The first layer of the Pathfinder networks.

N: batch; C: channels; H x W: image size; E: kernel size.
"""

import math

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import Tensor, nn

from crbp_d2.utils.errors import SettingError, check_odd, check_whole

from .build import arguments, keyed

# Width and wavelength of the Gabor filters per kernel size, and the envelope's ratio of across to along.
SIGMA, WAVELENGTH, ASPECT = 0.2, 4 / 7, 0.75


@BACKBONE_REGISTRY.register()
class ContourStem(Backbone):
    """A convolution that starts as a bank of Gabor filters, squared pointwise (Linsley et al. 2020, suppl. 3.1).

    Its only feature map is "stem": N x C x H x W, stride 1.

    Args:
        channels: C.
        kernel_size: E, odd.

    Raises:
        SettingError: channels or kernel size outside these; (by a config) images of more than one channel.
    """

    @keyed
    def __init__(self, *, channels: int = 25, kernel_size: int = 7):
        super().__init__()
        check_whole("ContourStem", channels=channels)
        check_odd("ContourStem", minimum=3, kernel_size=kernel_size)
        self.conv = nn.Conv2d(1, channels, kernel_size, padding=kernel_size // 2)
        with torch.no_grad():
            self.conv.weight.copy_(gabor_bank(channels, kernel_size))
            self.conv.bias.zero_()  # type: ignore[union-attr]

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict:
        if input_shape.channels != 1:
            raise SettingError("MODEL.PIXEL_MEAN", cfg.MODEL.PIXEL_MEAN, "one value, for ContourStem's 1 channel")
        return arguments(cfg, "ContourStem.channels", "ContourStem.kernel_size")

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """images: N x 1 x H x W."""
        if images.shape[1] != 1:
            raise ValueError(f"ContourStem takes images of 1 channel, got {images.shape[1]}")
        return {"stem": self.conv(images).square()}

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {"stem": ShapeSpec(channels=self.conv.out_channels, stride=1)}


def gabor_bank(channels: int, kernel_size: int) -> Tensor:
    """Gabor filters, C x 1 x E x E: one orientation for every pair of channels, in cosine and sine phase.

    g(x, y) = exp(-(x'^2 + (a y')^2) / (2 s^2)) cos(2 pi x' / l + phase), x', y' the rotated coordinates.
    Every filter has mean 0 and norm 1. With an odd number of channels the last is a difference of
    Gaussians, which prefers no orientation.
    """
    reach = kernel_size // 2
    y, x = torch.meshgrid(*[torch.arange(-reach, reach + 1, dtype=torch.float64)] * 2, indexing="ij")
    sigma = SIGMA * kernel_size
    filters = []
    pairs = channels // 2
    for k in range(pairs):
        angle = math.pi * k / pairs
        across, along = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
        envelope = torch.exp(-(across.square() + (ASPECT * along).square()) / (2 * sigma**2))
        carrier = 2 * math.pi * across / (WAVELENGTH * kernel_size)
        filters += [envelope * carrier.cos(), envelope * carrier.sin()]
    if channels % 2:
        squared = x.square() + y.square()
        filters.append(torch.exp(-2 * squared / sigma**2) - torch.exp(-squared / (2 * sigma**2)) / 4)
    bank = torch.stack(filters)[:, None]
    bank = bank - bank.mean(dim=(2, 3), keepdim=True)
    return (bank / torch.linalg.vector_norm(bank, dim=(2, 3), keepdim=True)).float()
