"""Which method a convolution is computed by: a function of its shape, precision and kind of device.

The same in every process, on every machine and whatever its load, so that two runs with one seed compute the same.
The times predicted are of one forward and one vector-Jacobian product in the input, which training at a fixed point
runs equally often; a weight's transform is shared by SHARED_BY of them. They only have to rank the methods.
`python -m tools.benchmarks convolution` holds the choices against the clock of a machine.

N: batch; C, K: input and output channels; H x W: image size; E: kernel size.
"""

import math
from dataclasses import dataclass

import torch

from .fourier import transform_size

# A method other than the direct one must promise to take less than this fraction of its time.
CLEARLY_FASTER = 0.9
# Elements of a spectrum above which no Fourier transform is taken, for the sake of memory (256 MiB in float32).
LARGEST_SPECTRUM = 2**25
# Smallest kernel for a Fourier transform or another layout, and fewest channels for minimal filtering.
SMALLEST_KERNEL, FEWEST_CHANNELS = 5, 32
# Channels from which oneDNN's 3 x 3 kernels are faster in the channels-last layout, norms and pointwise work included.
WIDE = 64
# Convolutions that share the transform of a weight, those of about half a solve.
SHARED_BY = 8


@dataclass(frozen=True)
class Problem:
    """The shape of a convolution: N x C x H x W to N x K x H x W by E x E kernels."""

    batch: int
    in_channels: int
    out_channels: int
    height: int
    width: int
    kernel_size: int


@dataclass(frozen=True)
class Direct:
    """Seconds of a direct convolution.

    call: of every one.
    product: of a multiply-add, with channels filled up to whole blocks.
    pixel: of an input or output element.
    block: channels that a kernel of the library computes together.
    """

    call: float
    product: float
    pixel: float
    block: int

    def seconds(self, problem: Problem) -> float:
        p = problem
        channels = (-(-c // self.block) * self.block for c in (p.in_channels, p.out_channels))
        products = p.batch * p.height * p.width * p.kernel_size**2
        elements = p.batch * p.height * p.width * (p.in_channels + p.out_channels)
        return self.call + self.product * products * math.prod(channels) + self.pixel * elements


@dataclass(frozen=True)
class Fourier:
    """Seconds of one by Fourier transform.

    call: of every one.
    transform: of an element of an image with its border, and a halving of the transform.
    product: of a complex multiply-add.
    kernel: of reading an element of the spectrum of the weight.
    spectrum: of computing such an element.
    """

    call: float
    transform: float
    product: float
    kernel: float
    spectrum: float

    def seconds(self, problem: Problem) -> float:
        p = problem
        size = transform_size((p.height, p.width), (p.kernel_size, p.kernel_size))
        maps, frequencies = p.in_channels * p.out_channels, size[0] * (size[1] // 2 + 1)
        elements = p.batch * (p.in_channels + p.out_channels) * math.prod(size)
        return (
            self.call
            + self.transform * elements * math.log2(math.prod(size))
            + self.product * p.batch * maps * frequencies
            + (self.kernel + self.spectrum / SHARED_BY) * maps * frequencies
        )


@dataclass(frozen=True)
class Winograd:
    """Seconds of one by minimal filtering.

    call: of every one.
    product: of a multiply-add.
    transform: of one of the 36 coefficients of a tile and channel.
    kernel: of reading an element of the transformed weight.
    transformed: of computing such an element.
    """

    call: float
    product: float
    transform: float
    kernel: float
    transformed: float

    def seconds(self, problem: Problem) -> float:
        p = problem
        coefficients = 36 * p.batch * -(-p.height // 4) * -(-p.width // 4)
        maps = p.in_channels * p.out_channels
        return (
            self.call
            + self.product * coefficients * maps
            + self.transform * coefficients * (p.in_channels + p.out_channels)
            + 36 * (self.kernel + self.transformed / SHARED_BY) * maps
        )


Costs = dict[str, Direct | Fourier | Winograd]


def _scaled(costs: Fourier | Winograd, by: float) -> Fourier | Winograd:
    return type(costs)(**{name: by * value for name, value in vars(costs).items()})


# Of the CPU: fitted to 300 shapes on one core with AVX-512 and with AVX2; where these disagree, between the two.
_FOURIER = Fourier(call=1.9e-4, transform=5.0e-10, product=3.3e-10, kernel=4.3e-10, spectrum=4.0e-9)
_WINOGRAD = Winograd(call=2.3e-4, product=3.1e-11, transform=2.4e-9, kernel=3.4e-10, transformed=2.2e-9)

# (kind of device, precision of the result) -> seconds; what is not here is computed directly.
TABLE: dict[tuple[str, torch.dtype], Costs] = {
    ("cpu", torch.float32): {
        "direct": Direct(call=8.9e-5, product=2.0e-11, pixel=2.0e-9, block=16),
        "fft": _FOURIER,
        "winograd": _WINOGRAD,
    },
    # The transforms compute in float32.
    ("cpu", torch.bfloat16): {
        "direct": Direct(call=1.2e-4, product=1.0e-11, pixel=2.0e-9, block=16),
        "fft": _FOURIER,
        "winograd": _WINOGRAD,
    },
    # No library has fast direct convolutions in these two for all processors.
    ("cpu", torch.float16): {
        "direct": Direct(call=8.9e-5, product=2.0e-10, pixel=4.0e-9, block=1),
        "fft": _FOURIER,
        "winograd": _WINOGRAD,
    },
    ("cpu", torch.float64): {
        "direct": Direct(call=8.9e-5, product=2.0e-10, pixel=4.0e-9, block=1),
        "fft": _scaled(_FOURIER, 2),
        "winograd": _scaled(_WINOGRAD, 2),
    },
    # Estimated from the arithmetic and bytes of a data centre's GPU, not measured; cuDNN has Winograd's kernels itself.
    ("cuda", torch.float32): {
        "direct": Direct(call=4e-5, product=2e-13, pixel=8e-12, block=32),
        "fft": Fourier(call=3e-4, transform=8e-12, product=4e-12, kernel=1e-11, spectrum=1e-10),
    },
}


def preferred_layout(channels: int, device: str) -> torch.memory_format:
    """The layout in which a cell of 3 x 3 convolutions had better run, from its drive on.

    Args:
        channels: of the cell.
        device: the kind, such as "cpu".
    """
    wide = device == "cpu" and channels >= WIDE
    return torch.channels_last if wide else torch.contiguous_format


def supports(method: str, problem: Problem) -> bool:
    """Whether a method may pay for a shape, and its memory is in proportion."""
    p = problem
    if method == "winograd":
        return p.kernel_size == 3 and min(p.in_channels, p.out_channels) >= FEWEST_CHANNELS
    if method == "fft":
        height, width = transform_size((p.height, p.width), (p.kernel_size, p.kernel_size))
        spectrum = p.in_channels * p.out_channels * height * (width // 2 + 1)
        return p.kernel_size >= SMALLEST_KERNEL and spectrum <= LARGEST_SPECTRUM
    return method == "direct" or p.kernel_size >= SMALLEST_KERNEL


def predicted_seconds(problem: Problem, dtype: torch.dtype, device: str) -> dict[str, float]:
    """Of each method that the table has for a precision and a kind of device, and that supports the shape."""
    costs = TABLE.get((device, dtype), {})
    return {method: cost.seconds(problem) for method, cost in costs.items() if supports(method, problem)}


def choose_method(problem: Problem, dtype: torch.dtype, device: str) -> str:
    """The method with which "auto" computes a convolution.

    Args:
        problem: its shape.
        dtype: of the result.
        device: the kind, such as "cpu" or "cuda".

    Returns:
        "direct", "fft" or "winograd".
    """
    seconds = predicted_seconds(problem, dtype, device)
    if not seconds:
        return "direct"
    best = min(seconds, key=seconds.__getitem__)
    return best if seconds[best] < CLEARLY_FASTER * seconds["direct"] else "direct"
