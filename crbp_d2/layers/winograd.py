"""3 x 3 convolutions by Winograd's minimal filtering F(4 x 4, 3 x 3), on tiles of 6 x 6 pixels with 4 x 4 outputs.

With zero padding, the size kept, differentiable any number of times. 36 products of matrices take the
place of 144 multiplications a tile and pair of channels, 4 times fewer (Lavin & Gray 2016, CVPR).

Its transforms multiply by up to 8 and cancel sums of up to 19 times a value, so that its rounding errors are about 8
times those of a direct convolution; `error_bounds` has the bound. Training in float32 does not feel this; where a
fixed point is to be found to less than about 1e-5, the direct method is meant. Half precision would be too coarse,
so its weights and images are converted to float32.

N: batch; C, K: input and output channels; H x W: image size; R x Q: tiles of an image.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from crbp_d2.utils.tracing import is_batched

from .bilinear import bilinear
from .cache import WeightTransform, outside_autograd
from .tensors import layout_of, widen

# y = A^T ((G w G^T) . (B^T x B)) A: B^T, G and A^T. The first and the last are what `_transform_input` and
# `_transform_output` compute in fewer operations.
INPUT = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
KERNEL = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
OUTPUT = (
    (1, 1, 1, 1, 1, 0),
    (0, 1, -1, 2, -2, 0),
    (0, 1, 1, 4, 4, 0),
    (0, 1, -1, 8, -8, 1),
)
# Elements of the largest buffer of a workspace, 5 MiB in float32; that many a processor's caches hold.
BLOCK = 5 * 2**18


class TransformedKernel(WeightTransform):
    """The transform of a weight and of its mirror image, each computed at first use.

    Args:
        weight: K x C x 3 x 3.
    """

    def __init__(self, weight: Tensor):
        super().__init__(weight)
        self._values: dict[bool, Tensor] = {}

    def values(self, mirrored: bool) -> Tensor:
        """36 x C x K; of the mirror image, which is the transpose's kernel, 36 x K x C."""
        if mirrored not in self._values:
            with outside_autograd():
                self._values[mirrored] = _transform_kernel(widen(self.snapshot), mirrored)
        return self._values[mirrored]


def _transform_kernel(weight: Tensor, mirrored: bool) -> Tensor:
    weight = weight.flip(2, 3) if mirrored else weight.transpose(0, 1)
    matrix = weight.new_tensor(KERNEL)
    return torch.einsum("ak,ijkl,bl->abij", matrix, weight, matrix).reshape(36, *weight.shape[:2]).contiguous()


def correlate(x: Tensor, weight: Tensor, kernel: TransformedKernel) -> Tensor:
    """The convolution of F.conv2d with padding 1.

    Args:
        x: N x C x H x W, none of them 0, float32 or float64.
        weight: K x C x 3 x 3, of the same precision.
        kernel: of the weight.

    Returns:
        N x K x H x W.
    """
    if is_batched((x, weight)):
        return F.conv2d(x, weight, padding=1)
    return bilinear(
        x,
        weight,
        lambda: _filter(x, kernel, mirrored=False),
        lambda g, weight: transpose(g, weight, kernel),
        kernel_gradient,
    )


def transpose(g: Tensor, weight: Tensor, kernel: TransformedKernel) -> Tensor:
    """The gradient of `correlate` in x. g: N x K x H x W; the result: N x C x H x W."""
    if is_batched((g, weight)):
        # Torch cannot vectorize operations into given buffers.
        return F.conv_transpose2d(g, weight, padding=1)
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


class _Workspace:
    """Buffers of one call, so that no two threads share them."""

    def __init__(self, like: Tensor):
        self._like = like
        self._buffers: dict[str, Tensor] = {}

    def take(self, name: str, *shape: int) -> Tensor:
        """A buffer of a shape with anything in it: the same for every shape under a name."""
        size = math.prod(shape)
        if name not in self._buffers or self._buffers[name].numel() < size:
            self._buffers[name] = self._like.new_empty(size)
        return self._buffers[name][:size].view(shape)


def _filter(x: Tensor, kernel: TransformedKernel, mirrored: bool) -> Tensor:
    """N x C x H x W -> N x K x H x W, a few samples at a time."""
    values = kernel.values(mirrored)
    n, channels, height, width = x.shape
    maps = values.shape[2]
    rows, columns = -(-height // 4), -(-width // 4)
    result = torch.empty(n, maps, height, width, dtype=x.dtype, device=x.device, memory_format=layout_of(x))
    most = max(1, BLOCK // (36 * rows * columns * max(channels, maps)))
    # As equal as can be: the products of a small rest take twice as long a sample.
    blocks = -(-n // most)
    padded = x.new_zeros(-(-n // blocks), 4 * rows + 2, 4 * columns + 2, channels)
    workspace = _Workspace(x)
    for part, out in zip(x.tensor_split(blocks), result.tensor_split(blocks), strict=True):
        filled = padded[: len(part)]
        filled[:, 1 : height + 1, 1 : width + 1].copy_(part.permute(0, 2, 3, 1))
        image = _filter_tiles(filled, values, workspace)
        out.copy_(image[:, :height, :width].permute(0, 3, 1, 2))
    return result


def _filter_tiles(padded: Tensor, values: Tensor, workspace: _Workspace) -> Tensor:
    """N x (4 R + 2) x (4 Q + 2) x C -> N x 4 R x 4 Q x K: channels last, so that the transforms add long rows."""
    n, channels, maps = len(padded), values.shape[1], values.shape[2]
    rows, columns = padded.shape[1] // 4, padded.shape[2] // 4
    take = workspace.take
    # Every second result lies where the one before the last was, which nobody needs any more.
    lines = take("odd", 6, n, rows, 4 * columns + 2, channels)
    _transform_input(_overlapping(padded, 1), lines.unbind(), take("scratch", 2, *lines.shape[1:]))
    tiles = take("even", 6, 6, n, rows, columns, channels)
    _transform_input(_overlapping(lines, 3), tiles.unbind(1), take("scratch", 2, 6, *tiles.shape[2:]))
    products = take("odd", 6, 6, n, rows, columns, maps)
    torch.bmm(tiles.view(36, -1, channels), values, out=products.view(36, -1, maps))
    halves = take("even", 4, *products.shape[1:])
    _transform_output(products.unbind(), halves.unbind(), take("scratch", 2, *halves.shape[1:]))
    y = take("odd", n, rows, 4, columns, 4, maps)
    _transform_output(halves.unbind(1), y.permute(4, 2, 0, 1, 3, 5).unbind(), take("scratch", 2, 4, *halves.shape[2:]))
    return y.view(n, 4 * rows, 4 * columns, maps)


def _overlapping(x: Tensor, dim: int) -> Sequence[Tensor]:
    """The first to the sixth pixels of all tiles along a dimension."""
    return x.unfold(dim, 6, 4).unbind(-1)


def _transform_input(x: Sequence[Tensor], out: Sequence[Tensor], scratch: Tensor) -> None:
    """B^T along one dimension: 6 pixels of every tile to 6 coefficients. scratch: 2 x shape of one."""
    a, b = scratch
    torch.sub(x[4], x[2], out=a)
    torch.sub(x[3], x[1], out=b)
    torch.sub(x[0], x[2], out=out[0])
    torch.add(a, out[0], alpha=4, out=out[0])  # 4 x0 - 5 x2 + x4
    torch.sub(x[5], x[3], out=out[5])
    torch.sub(out[5], b, alpha=4, out=out[5])  # 4 x1 - 5 x3 + x5
    torch.add(a, b, alpha=2, out=out[3])  # x4 - x2 +- 2 (x3 - x1)
    torch.sub(a, b, alpha=2, out=out[4])
    torch.sub(x[4], x[2], alpha=4, out=a)
    torch.sub(x[3], x[1], alpha=4, out=b)
    torch.add(a, b, out=out[1])  # x4 - 4 x2 +- (x3 - 4 x1)
    torch.sub(a, b, out=out[2])


def _transform_output(x: Sequence[Tensor], out: Sequence[Tensor], scratch: Tensor) -> None:
    """A^T along one dimension: 6 coefficients of every tile to 4 outputs. scratch: 2 x shape of one."""
    a, b = scratch
    torch.add(x[1], x[2], out=a)
    torch.add(x[3], x[4], out=b)
    torch.add(x[0], a, out=out[0])
    torch.add(out[0], b, out=out[0])  # x0 + x1 + x2 + x3 + x4
    torch.add(a, b, alpha=4, out=out[2])  # x1 + x2 + 4 (x3 + x4)
    torch.sub(x[1], x[2], out=a)
    torch.sub(x[3], x[4], out=b)
    torch.add(a, b, alpha=2, out=out[1])  # x1 - x2 + 2 (x3 - x4)
    torch.add(a, x[5], out=a)
    torch.add(a, b, alpha=8, out=out[3])  # x1 - x2 + 8 (x3 - x4) + x5
