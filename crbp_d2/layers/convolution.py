"""The convolutions of the cells: direct or by Fourier transform, whichever is faster.

N: batch; C, K: input and output channels; H x W: image size; E: kernel size.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crbp_d2.utils.errors import check_choice, check_odd, check_whole
from crbp_d2.utils.tracing import is_traced

from . import fourier
from .cache import kept_for_solve
from .cost_model import SMALLEST_KERNEL, Problem, choose_method
from .tensors import is_channels_last, keep_freed_memory, result_dtype, widen

METHODS = ("auto", "direct", "fft")
PRECISIONS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

# Batch from which torch computes a 1 x 1 convolution by several threads.
FULL_BATCH = 16
# Weights below which a product of matrices takes less time than a 1 x 1 convolution, which is made for many channels.
FEW_WEIGHTS = 32 * 32


class HorizontalConv2d(nn.Conv2d):
    """A convolution over space with zero padding that keeps the size.

    Both methods give the same up to rounding. In half precision and under autocast, "fft" computes in float32 and gives
    a result of the direct convolution's precision. Where torch traces, compiles or transforms the call, and for 1 x 1
    kernels, it is computed directly.

    Args:
        kernel_size: E, odd.
        method: "direct"; "fft", by Fourier transform; or "auto", the one that `cost_model` expects to be the faster, a
            function of the shapes, the precision and the kind of device.
        of_drive: whether the layer is applied to the drive, the same at every step: without a graph, a solve then
            computes it once.

    Raises:
        SettingError: an unknown method, an even kernel size, a number that is not a positive integer.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        bias: bool = False,
        method: str = "auto",
        of_drive: bool = False,
    ):
        check_whole("convolution", in_channels=in_channels, out_channels=out_channels)
        check_odd("convolution", kernel_size=kernel_size)
        super().__init__(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=bias)
        self.of_drive = of_drive
        self.set_method(method)

    def set_method(self, method: str) -> None:
        """Choose a method; see the class."""
        check_choice("HorizontalConv2d", METHODS, convolution=method)
        self.method = method

    def forward(self, x: Tensor) -> Tensor:
        """x: N x C x H x W; the result: N x K x H x W."""
        # Read once: a parametrization may draw another weight at every look.
        weight, bias = self.weight, self.bias
        if is_traced(x) or not self._is_computable(x, weight):
            return self._conv_forward(x, weight, bias)
        if not self.of_drive or torch.is_grad_enabled():
            return self._computed(x, weight, bias)
        tensors = (x, weight) if bias is None else (x, weight, bias)
        key = self, x.data_ptr(), result_dtype(x), self.method
        return kept_for_solve(key, tensors, lambda: self._computed(x, weight, bias))

    def _computed(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.kernel_size == (1, 1):
            return _pointwise(x, weight, bias)
        if self._method_for(x) == "fft":
            return self._by_fourier(x, weight, bias)
        return self._conv_forward(x, self._laid_out_for(x, weight), bias)

    def _is_computable(self, x: Tensor, weight: Tensor) -> bool:
        """True if other methods compute this; empty, complex and mismatched arguments are left to torch."""
        fits = x.dim() == 4 and x.shape[1] == self.in_channels and x.numel() > 0 and x.device == weight.device
        same = x.dtype == weight.dtype or torch.is_autocast_enabled(x.device.type)
        return fits and same and x.dtype in PRECISIONS and weight.dtype in PRECISIONS

    def _method_for(self, x: Tensor) -> str:
        if self.method != "auto":
            return self.method
        if self.kernel_size[0] < SMALLEST_KERNEL:
            return "direct"
        height, width = x.shape[2:]
        problem = Problem(len(x), self.in_channels, self.out_channels, height, width, self.kernel_size[0])
        return choose_method(problem, result_dtype(x), x.device.type)

    def _by_fourier(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if x.device.type == "cpu":
            keep_freed_memory()
        size = fourier.transform_size(x.shape[-2:], self.kernel_size)
        spectrum = kept_for_solve((self, size), (weight,), lambda: fourier.kernel_spectrum(weight, size))
        y = fourier.correlate(widen(x), widen(weight), spectrum)
        if bias is not None:
            y = y + bias.view(-1, 1, 1)
        return y.to(result_dtype(x))

    def _laid_out_for(self, x: Tensor, weight: Tensor) -> Tensor:
        """The weight in the layout of channels-last images, or every convolution would bring a copy into it."""
        if x.device.type != "cpu" or torch.is_autocast_enabled("cpu") or not is_channels_last(x):
            return weight
        if torch.is_grad_enabled() and weight.requires_grad:
            return weight.contiguous(memory_format=torch.channels_last)
        return kept_for_solve(self, (weight,), lambda: weight.contiguous(memory_format=torch.channels_last))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, method={self.method}"


def set_convolution(module: nn.Module, method: str) -> None:
    """Set how all horizontal convolutions below a module are computed.

    Args:
        method: in METHODS; see HorizontalConv2d.

    Raises:
        SettingError: another method.
    """
    check_choice("set_convolution", METHODS, convolution=method)
    for part in module.modules():
        if isinstance(part, HorizontalConv2d):
            part.set_method(method)


def _pointwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A 1 x 1 convolution; on a CPU, few channels-last images as many of one row, few channels by matrix products."""
    if x.device.type == "cpu" and is_channels_last(x) and len(x) < FULL_BATCH:
        count, channels, height, width = x.shape
        # Views: N x H x W x C is the order in memory.
        rows = x.permute(0, 2, 3, 1).view(count * height, 1, width, channels).permute(0, 3, 1, 2)
        y = F.conv2d(rows, weight, bias)
        return y.permute(0, 2, 3, 1).reshape(count, height, width, -1).permute(0, 3, 1, 2)
    few = x.device.type == "cpu" and weight.numel() < FEW_WEIGHTS and not torch.is_autocast_enabled("cpu")
    if not few or x.dtype not in (torch.float32, torch.float64) or not x.is_contiguous():
        return F.conv2d(x, weight, bias)
    pixels, matrices = x.flatten(2), weight.flatten(1).expand(len(x), -1, -1)
    y = matrices @ pixels if bias is None else torch.baddbmm(bias[:, None], matrices, pixels)
    return y.unflatten(2, x.shape[2:])
