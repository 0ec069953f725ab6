"""The horizontal convolutions of the cells: direct or by a transform, whichever is faster.

N: batch; C, K: input and output channels; H x W: image size; E: kernel size.
"""

import logging
from collections.abc import Hashable
from functools import partial

import torch
from torch import Tensor, nn

from crbp_d2.utils.errors import ContradictionError, check_choice, check_odd, check_whole
from crbp_d2.utils.tracing import is_compiled, is_traced

from . import channels_last, fourier, winograd
from .cache import TransformStore
from .cost_model import Problem, choose_method, supports
from .tensors import is_channels_last, keep_freed_memory, widen
from .timing import fastest

METHODS = ("auto", "benchmark", "direct", "channels_last", "fft", "winograd")

# Those that leave the choice to the layer, or to nobody; they can be traced and exported.
PLAIN = ("auto", "benchmark", "direct")
PRECISIONS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

# What "benchmark" has found in this process: the fastest method. Threads that time at once agree on the first answer.
_CHOICES: dict[Hashable, str] = {}


class HorizontalConv2d(nn.Conv2d):
    """A convolution over space with zero padding that keeps the size; see `horizontal_convolution`.

    All methods give the same up to rounding; `error_bounds` has the bounds. In half precision and under autocast, those
    beside the direct one compute in float32 and give a result of the direct one's precision.

    Attributes:
        method: "direct"; "channels_last", directly in that layout; "fft", by Fourier transform; "winograd", by
            minimal filtering, for 3 x 3 kernels; "auto", the one that `cost_model` expects to be the fastest, a
            function of the shapes, the precision and the kind of device (direct under tracing and export, for
            tensors without values, and for those of `torch.func`); or "benchmark", the fastest one by a timing in this
            process, so that two runs need not compute the same to the last bit.

    Raises:
        SettingError: an unknown method, an even kernel size, a number that is not whole or not positive.
        ContradictionError: "winograd" with another kernel size.
    """

    _announced = False

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, bias: bool = False, method: str = "auto"):
        check_whole("convolution", in_channels=in_channels, out_channels=out_channels)
        check_odd("convolution", kernel_size=kernel_size)
        super().__init__(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=bias)
        self.set_method(method)
        self._transforms = TransformStore()

    def set_method(self, method: str) -> None:
        """Choose a method; see the class."""
        check_choice("HorizontalConv2d", METHODS, convolution=method)
        if method == "winograd" and self.kernel_size != (3, 3):
            raise ContradictionError(
                {"convolution": method, "kernel_size": self.kernel_size[0]},
                "it is for 3 x 3 kernels",
                "HorizontalConv2d",
            )
        self.method = method
        if method not in PLAIN:
            self._keep_from_compiler()

    def forward(self, x: Tensor) -> Tensor:
        """x: N x C x H x W; the result: N x K x H x W."""
        # Read once: a parametrization may draw another weight at every look.
        weight, bias = self.weight, self.bias
        method = self._method_for(x, weight)
        if method == "direct":
            return self._conv_forward(x, self._laid_out_for(x, weight), bias)
        return self._indirectly(x, weight, bias, method)

    def _laid_out_for(self, x: Tensor, weight: Tensor) -> Tensor:
        """The weight in the layout of channels-last images, or every convolution would bring a copy into it."""
        if is_traced(x) or is_traced(weight) or x.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
            return weight
        if not is_channels_last(x):
            return weight
        if torch.is_grad_enabled() and weight.requires_grad:
            return weight.contiguous(memory_format=torch.channels_last)
        return self._transforms.get("channels_last", weight, channels_last.RelaidWeight).values

    @classmethod
    def _keep_from_compiler(cls) -> None:
        """Have torch.compile call the other methods, not look into them: it would lose gradients of the weight."""
        if not hasattr(cls._indirectly, "_torchdynamo_disable"):
            cls._indirectly = torch.compiler.disable(cls._indirectly)  # type: ignore[method-assign]

    def _method_for(self, x: Tensor, weight: Tensor) -> str:
        if self.method == "direct":
            return "direct"
        if is_traced(x):
            if self.method in PLAIN:
                return "direct"
            if not is_compiled():
                raise RuntimeError(
                    f"the method {self.method!r} of a convolution cannot be traced, exported or transformed by "
                    "torch.func: choose 'auto' or 'direct'"
                )
        if not self._is_computable(x, weight):
            return "direct"
        if self.method == "benchmark":
            method, reason = self._fastest(x, weight), "timed in this process"
        elif self.method == "auto":
            method, reason = choose_method(self._problem(x), _result_dtype(x), x.device.type), "by the cost model"
        else:
            return self.method
        self._announce(x, method, reason)
        return method

    def _is_computable(self, x: Tensor, weight: Tensor) -> bool:
        """Whether other methods compute this; what is empty, complex or does not fit is left to torch's own words."""
        fits = x.dim() == 4 and x.shape[1] == self.in_channels and x.numel() > 0 and x.device == weight.device
        same = x.dtype == weight.dtype or torch.is_autocast_enabled(x.device.type)
        return fits and same and x.dtype in PRECISIONS and weight.dtype in PRECISIONS

    def _announce(self, x: Tensor, method: str, reason: str) -> None:
        """Log the first choice of this layer; a replica of DataParallel lives for one call alone."""
        if self._announced or getattr(self, "_is_replica", False):
            return
        self._announced = True
        kernel, shape = (" x ".join(map(str, sizes)) for sizes in (self.kernel_size, x.shape))
        logging.getLogger(__name__).info(
            "Convolution of %d to %d channels with %s kernels: method %s for %s in %s on %s (%s)",
            self.in_channels, self.out_channels, kernel, method, shape, _result_dtype(x), x.device.type, reason,
        )  # fmt: skip

    def _indirectly(self, x: Tensor, weight: Tensor, bias: Tensor | None, method: str) -> Tensor:
        dtype, image, kernel = _result_dtype(x), widen(x), widen(weight)
        if method == "channels_last":
            y = channels_last.correlate(image, kernel)
        elif method == "winograd":
            transform = self._transforms.get("winograd", weight, winograd.TransformedKernel)
            y = winograd.correlate(image, kernel, transform)
        else:
            if x.device.type == "cpu":
                keep_freed_memory()
            size = fourier.transform_size(x.shape[-2:], self.kernel_size)
            spectrum = self._transforms.get(size, weight, lambda weight: fourier.Spectrum(weight, size))
            y = fourier.correlate(image, kernel, spectrum)
        if bias is not None:
            y = y + bias.view(-1, 1, 1)
        return y.to(dtype)

    def _fastest(self, x: Tensor, weight: Tensor) -> str:
        batch = (len(x) - 1).bit_length()
        key = (x.device, x.dtype, _result_dtype(x), self.in_channels, self.out_channels, *self.kernel_size,
               *x.shape[2:], batch)  # fmt: skip
        if key not in _CHOICES:
            _CHOICES.setdefault(key, self._time(x, weight.detach()))
        return _CHOICES[key]

    @torch.no_grad()
    def _time(self, x: Tensor, weight: Tensor) -> str:
        # The weight is detached, or autocast of older torch keeps the one it casts here, without a graph, for the run.
        calls = {"direct": partial(self._conv_forward, x, self._laid_out_for(x, weight), None)}
        for method in self._candidates(x):
            calls[method] = partial(self._indirectly, x, weight, None, method)
        return fastest(calls, x.device) if len(calls) > 1 else "direct"

    def _problem(self, x: Tensor) -> Problem:
        height, width = x.shape[2:]
        return Problem(len(x), self.in_channels, self.out_channels, height, width, self.kernel_size[0])

    def _candidates(self, x: Tensor) -> list[str]:
        """The methods beside the direct one that may be worth a timing."""
        problem = self._problem(x)
        methods = ["fft", "winograd"]
        if x.device.type == "cpu" and x.dtype == _result_dtype(x):
            methods.insert(0, "channels_last")
        return [method for method in methods if supports(method, problem)]

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, method={self.method}"


def horizontal_convolution(
    in_channels: int, out_channels: int, kernel_size: int, bias: bool = False
) -> HorizontalConv2d:
    """A convolution over space with zero padding that keeps the size.

    Args:
        kernel_size: E of the E x E kernel, odd.

    Raises:
        ValueError: an even kernel size, or a number that is not whole or not positive.
    """
    return HorizontalConv2d(in_channels, out_channels, kernel_size, bias)


def set_convolution(module: nn.Module, method: str) -> None:
    """Set how all horizontal convolutions below a module are computed.

    Args:
        method: in METHODS; see HorizontalConv2d.

    Raises:
        ValueError: another method, one that does not go with a kernel size.
    """
    check_choice("set_convolution", METHODS, convolution=method)
    for part in module.modules():
        if isinstance(part, HorizontalConv2d):
            part.set_method(method)


def _result_dtype(x: Tensor) -> torch.dtype:
    """That of a direct convolution of x."""
    if torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:
        return torch.get_autocast_dtype(x.device.type)
    return x.dtype


# Below, torch leaves a 1 x 1 convolution in one thread to a product of matrices that takes up to twice as long.
FULL_BATCH = 16
# Weights below which such a product takes less time than a convolution, which is made for many channels.
FEW_WEIGHTS = 32 * 32
MATRIX_PRECISIONS = (torch.float32, torch.float64)


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
        return x.dtype in MATRIX_PRECISIONS and x.is_contiguous() and not torch.is_autocast_enabled("cpu")
