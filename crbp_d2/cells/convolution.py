"""The horizontal convolutions of the cells: direct or by Fourier transform, whichever is faster.

N: batch; C, K: input and output channels; H x W: image size; E: kernel size.
"""

import time
from collections.abc import Callable, Hashable
from statistics import median

import torch
from torch import Tensor, nn

from crbp_d2.recurrence.scope import solve_cache
from crbp_d2.recurrence.state import widen

from .fourier import Spectrum, correlate, transform_size

METHODS = ("auto", "direct", "fft")
# Below this kernel size transforms do not pay, so that "auto" does not even try.
SMALLEST_KERNEL = 5
# Elements of a spectrum above which "auto" does not try them either, for the sake of memory (256 MiB in float32).
LARGEST_SPECTRUM = 2**25
# Share of the direct time that the transforms must stay below, which is more than what timings scatter.
CLEARLY_FASTER = 0.9
# Pairs of runs that are timed, and seconds after which no more are begun.
MOST_PAIRS = 9
MOST_SECONDS = 1.0

# What "auto" has found in this process: whether the transforms are clearly faster.
_CHOICES: dict[Hashable, bool] = {}


class HorizontalConv2d(nn.Conv2d):
    """A convolution over space with zero padding that keeps the size; see `horizontal_convolution`.

    Both methods give the same up to rounding. Under autocast the transforms compute in float32 and give
    what the direct convolution would, the lower precision.

    Attributes:
        method: "direct"; "fft", by Fourier transform; or "auto", the one that is faster: for each combination
            of device, precision, channels, kernel and image size and (to the next power of two) batch size both
            are timed once in a process, and the choice is kept.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, bias: bool = False, method: str = "auto"):
        super().__init__(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=bias)
        self.method = _checked(method)

    def forward(self, x: Tensor) -> Tensor:
        """x: N x C x H x W; the result: N x K x H x W."""
        # What is empty or has the wrong shape is left to torch.
        sound = x.dim() == 4 and x.shape[1] == self.in_channels and x.numel() > 0
        if sound and (self.method == "fft" or self.method == "auto" and self._fft_is_faster(x)):
            return self._by_transform(x)
        return super().forward(x)

    def _by_transform(self, x: Tensor) -> Tensor:
        weight = widen(self.weight)
        y = correlate(widen(x), weight, self._spectrum(x))
        if self.bias is not None:
            y = y + self.bias.view(-1, 1, 1)
        return y.to(_result_dtype(x))

    def _spectrum(self, x: Tensor) -> Spectrum:
        """That of the solve that is running, or a new one outside of one."""
        size = transform_size(x.shape[-2:], self.kernel_size)
        cache = solve_cache()
        if cache is None:
            return Spectrum(self.weight, size)
        spectrum = cache.get((self, size))
        if spectrum is None or not spectrum.belongs_to(self.weight):
            spectrum = cache[self, size] = Spectrum(self.weight, size)
        return spectrum

    def _fft_is_faster(self, x: Tensor) -> bool:
        extent, channels = self.kernel_size[0], self.in_channels * self.out_channels
        if extent < SMALLEST_KERNEL or torch.jit.is_tracing():
            return False
        length, width = transform_size(x.shape[-2:], self.kernel_size)
        if channels * length * (width // 2 + 1) > LARGEST_SPECTRUM:
            return False
        # Within a solve the spectrum is there already from the second step on; outside it counts every time.
        shared = solve_cache() is not None
        batch = (x.shape[0] - 1).bit_length()
        key = (x.device, x.dtype, _result_dtype(x), self.in_channels, self.out_channels, extent, *x.shape[2:], batch,
               shared)  # fmt: skip
        if key not in _CHOICES:
            # Threads that measure at the same time agree on the first answer.
            _CHOICES.setdefault(key, self._measure(x))
        return _CHOICES[key]

    @torch.no_grad()
    def _measure(self, x: Tensor) -> bool:
        # Detached, or autocast of older torch keeps the weight it casts here, without a graph, for the run itself.
        weight = self.weight.detach()
        ratio = _time_ratio(lambda: self._by_transform(x), lambda: self._conv_forward(x, weight, None), x.device)
        return ratio < CLEARLY_FASTER

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
        ValueError: another method.
    """
    _checked(method)
    for part in module.modules():
        if isinstance(part, HorizontalConv2d):
            part.method = method


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
