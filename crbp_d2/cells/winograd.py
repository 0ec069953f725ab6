"""3 x 3 convolutions by Winograd's minimal filtering F(2 x 2, 3 x 3), on tiles of 4 x 4 pixels with 2 x 2 outputs.

With zero padding, the size kept, differentiable any number of times. 16 products of matrices take the
place of 36 multiplications a tile and pair of channels, 2.25 times fewer. The transforms have coefficients
1 and 1/2 only and cost no precision (Lavin & Gray 2016, CVPR).

N: batch; C, K: input and output channels; H x W: image size; R x Q: tiles of an image.
"""

from collections.abc import Hashable

import torch
from torch import Tensor

from crbp_d2.recurrence.state import widen

from .bilinear import WeightTransform, bilinear

# B^T, G and A^T of y = A^T ((G w G^T) . (B^T x B)) A.
INPUT = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))
KERNEL = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))
OUTPUT = ((1, 1, 1, 0), (0, 1, -1, -1))


class TransformedKernel(WeightTransform):
    """The transform of a weight and of its mirror image, each computed at first use.

    Args:
        weight: K x C x 3 x 3.
        memory: where convolutions keep the room they work in, which those of one solve need again and again and
            may share; by default their own.
    """

    def __init__(self, weight: Tensor, memory: dict[Hashable, Tensor] | None = None):
        super().__init__(weight)
        self._values: dict[bool, Tensor] = {}
        self._memory = {} if memory is None else memory

    def values(self, mirrored: bool) -> Tensor:
        """16 x C x K; of the mirror image, which is the transpose's kernel, 16 x K x C."""
        if mirrored not in self._values:
            weight = widen(self.weight.detach())
            weight = weight.flip(2, 3) if mirrored else weight.transpose(0, 1)
            matrix = weight.new_tensor(KERNEL)
            transformed = torch.einsum("ak,ijkl,bl->abij", matrix, weight, matrix)
            self._values[mirrored] = transformed.reshape(16, *weight.shape[:2]).contiguous()
        return self._values[mirrored]

    def memory(self, name: str, like: Tensor, *shape: int) -> Tensor:
        """Room of a shape, with what was last left in it; zeros at first."""
        key = name, shape, like.dtype, like.device
        if key not in self._memory:
            self._memory[key] = like.new_zeros(shape)
        return self._memory[key]


def correlate(x: Tensor, weight: Tensor, kernel: TransformedKernel) -> Tensor:
    """The convolution of F.conv2d with padding 1.

    Args:
        x: N x C x H x W, none of them 0, float32 or float64.
        weight: K x C x 3 x 3, of the same precision.
        kernel: of the weight.

    Returns:
        N x K x H x W.
    """
    return bilinear(
        x,
        weight,
        lambda: _filter(x, kernel, mirrored=False),
        lambda g, weight: transpose(g, weight, kernel),
        kernel_gradient,
    )


def transpose(g: Tensor, weight: Tensor, kernel: TransformedKernel) -> Tensor:
    """The gradient of `correlate` in x. g: N x K x H x W; the result: N x C x H x W."""
    return bilinear(
        g,
        weight,
        lambda: _filter(g, kernel, mirrored=True),
        lambda u, weight: correlate(u, weight, kernel),
        lambda u, g: kernel_gradient(g, u),
    )


def kernel_gradient(g: Tensor, x: Tensor) -> Tensor:
    """The gradient of `correlate` in the weight, directly. g: N x K x H x W; x: N x C x H x W; K x C x 3 x 3."""
    shape = g.shape[1], x.shape[1], 3, 3
    return bilinear(
        x,
        g,
        lambda: torch.nn.grad.conv2d_weight(x, shape, g, padding=1),
        lambda v, g: transpose(g, v, TransformedKernel(v)),
        lambda v, x: correlate(x, v, TransformedKernel(v)),
    )


def _filter(x: Tensor, kernel: TransformedKernel, mirrored: bool) -> Tensor:
    """N x C x H x W -> N x K x H x W, channels last in between."""
    values = kernel.values(mirrored)
    n, channels, height, width = x.shape
    maps = values.shape[2]
    rows, columns = -(-height // 2), -(-width // 2)
    count = n * rows * columns
    # The border is never written to, so it stays zero.
    padded = kernel.memory("padded", x, n, 2 * rows + 2, 2 * columns + 2, channels)
    padded[:, 1 : height + 1, 1 : width + 1].copy_(x.permute(0, 2, 3, 1))
    image, row, column, one = padded.stride()
    overlapping = padded.as_strided(
        (4, 4, n, rows, columns, channels), (row, column, image, 2 * row, 2 * column, one)
    )  # fmt: skip
    tiles = kernel.memory("tiles", x, 16, count * channels)
    tiles.view(overlapping.shape).copy_(overlapping)
    transformed = torch.mm(_twice(x, INPUT), tiles, out=kernel.memory("transformed", x, 16, count * channels))
    products = kernel.memory("products", x, 16, count, maps)
    torch.bmm(transformed.view(16, count, channels), values, out=products)
    outputs = kernel.memory("outputs", x, 4, count * maps)
    torch.mm(_twice(x, OUTPUT), products.view(16, -1), out=outputs)
    y = x.new_empty(n, maps, 2 * rows, 2 * columns)
    y.view(n, maps, rows, 2, columns, 2).copy_(outputs.view(2, 2, n, rows, columns, maps).permute(2, 5, 3, 0, 4, 1))
    return y[:, :, :height, :width].contiguous()


def _twice(like: Tensor, matrix: tuple) -> Tensor:
    """The matrix that applies `matrix` to the rows and to the columns of flattened tiles."""
    once = like.new_tensor(matrix)
    return torch.kron(once, once)
