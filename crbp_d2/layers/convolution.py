"""The horizontal convolutions of the cells: direct or by a transform, whichever is faster.

N: batch; C, K: input and output channels; H x W: image size; E: kernel size.
"""

import time
from collections.abc import Callable, Hashable
from statistics import median

import torch
from torch import Tensor, nn

from crbp_d2.recurrence.scope import solve_cache
from crbp_d2.recurrence.state import widen

from . import channels_last, fourier, winograd
from .bilinear import WeightTransform

METHODS = ("auto", "direct", "channels_last", "fft", "winograd")
# Kernels below which, and channels with fewer than which for the transform of 3 x 3 kernels, nothing but the direct
# method pays, so that "auto" does not even try.
SMALLEST_KERNEL, FEWEST_CHANNELS = 5, 32
# Elements of a spectrum above which "auto" does not try them either, for the sake of memory (256 MiB in float32).
LARGEST_SPECTRUM = 2**25
# Share of the direct time that another method must stay below, which is more than what timings scatter.
CLEARLY_FASTER = 0.9
# Pairs of runs that are timed, and seconds after which no more are begun.
MOST_PAIRS = 9
MOST_SECONDS = 1.0

# What "auto" has found in this process: the fastest method.
_CHOICES: dict[Hashable, str] = {}


class HorizontalConv2d(nn.Conv2d):
    """A convolution over space with zero padding that keeps the size; see `horizontal_convolution`.

    All methods give the same up to rounding. Under autocast the transforms compute in float32 and give
    what the direct convolution would, the lower precision.

    Attributes:
        method: "direct"; "channels_last", directly in that layout; "fft", by Fourier transform; "winograd", by
            minimal filtering, for 3 x 3 kernels; or "auto", the fastest one: for each combination of device,
            precision, channels, kernel and image size and (to the next power of two) batch size those that may be
            worth it are timed once in a process, and the choice is kept.

    Raises:
        ValueError: an unknown method, "winograd" with another kernel size.
    """

    _kept_from_compiler = False

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, bias: bool = False, method: str = "auto"):
        super().__init__(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=bias)
        self.set_method(method)

    def set_method(self, method: str) -> None:
        """Choose a method; see the class."""
        if method == "winograd" and self.kernel_size != (3, 3):
            raise ValueError(f"the method 'winograd' is for 3 x 3 kernels, not for {self.kernel_size}")
        self.method = _checked(method)

    def forward(self, x: Tensor) -> Tensor:
        """x: N x C x H x W; the result: N x K x H x W."""
        # What is empty or has the wrong shape is left to torch.
        sound = x.dim() == 4 and x.shape[1] == self.in_channels and x.numel() > 0
        method = self._choose(x) if sound and self.method == "auto" else self.method
        if sound and method != "direct":
            return self._indirectly(x, method)
        return super().forward(x)

    @classmethod
    def keep_from_compiler(cls) -> None:
        """Have torch.compile call these convolutions, not look into them, where it would meet timings and caches."""
        if not cls._kept_from_compiler:
            cls.forward, cls._kept_from_compiler = torch.compiler.disable(cls.forward), True

    def _indirectly(self, x: Tensor, method: str) -> Tensor:
        dtype = _result_dtype(x)
        if method == "channels_last":
            y = channels_last.correlate(x.to(dtype), self.weight.to(dtype))
        else:
            correlate = winograd.correlate if method == "winograd" else fourier.correlate
            y = correlate(widen(x), widen(self.weight), self._transform(x, method))
        if self.bias is not None:
            y = y + self.bias.view(-1, 1, 1)
        return y.to(dtype)

    def _transform(self, x: Tensor, method: str) -> WeightTransform:
        """That of the solve that is running, or a new one outside of one."""
        size = None if method == "winograd" else fourier.transform_size(x.shape[-2:], self.kernel_size)
        cache = solve_cache()
        found = None if cache is None else cache.get((self, size))
        if found is None or not found.belongs_to(self.weight):
            if size is None:
                memory = None if cache is None else cache.setdefault(winograd, {})
                found = winograd.TransformedKernel(self.weight, memory)
            else:
                found = fourier.Spectrum(self.weight, size)
            if cache is not None:
                cache[self, size] = found
        return found

    def _choose(self, x: Tensor) -> str:
        candidates = self._candidates(x)
        if not candidates:
            return "direct"
        # Within a solve the transform is there already from the second step on; outside it counts every time.
        shared = solve_cache() is not None
        batch = (x.shape[0] - 1).bit_length()
        key = (x.device, x.dtype, _result_dtype(x), self.in_channels, self.out_channels, *self.kernel_size,
               *x.shape[2:], batch, shared)  # fmt: skip
        if key not in _CHOICES:
            # Threads that measure at the same time agree on the first answer.
            _CHOICES.setdefault(key, self._fastest(x, candidates))
        return _CHOICES[key]

    def _candidates(self, x: Tensor) -> list[str]:
        """The methods beside the direct one that may be worth their time."""
        if torch.jit.is_tracing():
            return []
        if self.kernel_size == (3, 3):
            return ["winograd"] if min(self.in_channels, self.out_channels) >= FEWEST_CHANNELS else []
        if self.kernel_size[0] < SMALLEST_KERNEL:
            return []
        candidates = ["channels_last"] if x.device.type == "cpu" and x.dtype == _result_dtype(x) else []
        length, width = fourier.transform_size(x.shape[-2:], self.kernel_size)
        if self.in_channels * self.out_channels * length * (width // 2 + 1) <= LARGEST_SPECTRUM:
            candidates.append("fft")
        return candidates

    def _fastest(self, x: Tensor, candidates: list[str]) -> str:
        ratios = {method: self._measure(x, method) for method in candidates}
        best = min(ratios, key=ratios.get)
        return best if ratios[best] < CLEARLY_FASTER else "direct"

    @torch.no_grad()
    def _measure(self, x: Tensor, method: str) -> float:
        """The time of a method over that of the direct one."""
        # Detached, or autocast of older torch keeps the weight it casts here, without a graph, for the run itself.
        weight = self.weight.detach()
        return _time_ratio(lambda: self._indirectly(x, method), lambda: self._conv_forward(x, weight, None), x.device)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, method={self.method}"


def horizontal_convolution(
    in_channels: int, out_channels: int, kernel_size: int, bias: bool = False
) -> HorizontalConv2d:
    """A convolution over space with zero padding that keeps the size.

    Args:
        kernel_size: E of the E x E kernel, odd.

    Raises:
        ValueError: an even or non-positive kernel size.
    """
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size must be an odd number such as 3 or 15, got {kernel_size}")
    return HorizontalConv2d(in_channels, out_channels, kernel_size, bias)


def set_convolution(module: nn.Module, method: str) -> None:
    """Set how all horizontal convolutions below a module are computed.

    Args:
        method: in METHODS; see HorizontalConv2d.

    Raises:
        ValueError: another method, one that does not go with a kernel size.
    """
    _checked(method)
    for part in module.modules():
        if isinstance(part, HorizontalConv2d):
            part.set_method(method)


def _checked(method: str) -> str:
    if method not in METHODS:
        raise ValueError(f"the method of a convolution must be one of {', '.join(METHODS)}, got {method!r}")
    return method


def _result_dtype(x: Tensor) -> torch.dtype:
    """That of a direct convolution of x."""
    if torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:
        return torch.get_autocast_dtype(x.device.type)
    return x.dtype


def _time_ratio(a: Callable[[], object], b: Callable[[], object], device: torch.device) -> float:
    """The time of a over that of b: the median over pairs, after one to warm up."""
    ratios: list[float] = []
    _seconds(a, device), _seconds(b, device)
    spent = 0.0
    while not ratios or len(ratios) < MOST_PAIRS and spent < MOST_SECONDS:
        times = _seconds(a, device), _seconds(b, device)
        ratios.append(times[0] / times[1])
        spent += sum(times)
    return median(ratios)


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    _wait(device)
    start = time.perf_counter()
    call()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
