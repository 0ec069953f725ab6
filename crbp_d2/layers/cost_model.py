"""Cost model of Fourier transforms: a function of a convolution's shape, its precision and the kind of device.

The same in every process, on every machine and whatever its load, so that two runs with one seed compute the same.
The predicted times are of one forward and one vector-Jacobian product in the input, which training at a fixed point
runs equally often; the spectrum of a weight is shared by SHARED_BY of them. They only have to rank the methods.
`python -m tools.benchmarks convolution` compares the choices with measured times.

N: batch; C, K: input and output channels; H x W: image size; E: kernel size.
"""

import math
from dataclasses import dataclass

import torch

from .fourier import transform_size

# A Fourier transform must promise to take less than this fraction of the direct method's time.
CLEARLY_FASTER = 0.9
# Elements of a spectrum above which no Fourier transform is taken, for the sake of memory (256 MiB in float32).
LARGEST_SPECTRUM = 2**25
# Smallest kernel for a Fourier transform.
SMALLEST_KERNEL = 5
# Convolutions that share the spectrum of a weight, about half a solve's.
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

    call: seconds of every call.
    product: seconds of a multiply-add, with channels filled up to whole blocks.
    pixel: seconds of an input or output element.
    block: channels that the library computes together.
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
    """Seconds of a convolution by Fourier transform.

    call: seconds of every call.
    transform: seconds of an element of an image with its border, and a halving of the transform.
    product: seconds of a complex multiply-add.
    kernel: seconds of reading an element of the spectrum of the weight.
    spectrum: seconds of computing such an element.
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


# Of the CPU: fitted to 300 shapes on one core with AVX-512 and with AVX2; where these disagree, between the two.
_FOURIER = Fourier(call=1.9e-4, transform=5.0e-10, product=3.3e-10, kernel=4.3e-10, spectrum=4.0e-9)
_TWICE = Fourier(**{name: 2 * value for name, value in vars(_FOURIER).items()})

# (kind of device, precision of the result) -> costs; what is missing is computed directly. No GPU has been measured.
TABLE: dict[tuple[str, torch.dtype], tuple[Direct, Fourier]] = {
    ("cpu", torch.float32): (Direct(call=8.9e-5, product=2.0e-11, pixel=2.0e-9, block=16), _FOURIER),
    # The transforms compute in float32.
    ("cpu", torch.bfloat16): (Direct(call=1.2e-4, product=1.0e-11, pixel=2.0e-9, block=16), _FOURIER),
    # No library has fast direct convolutions in these two for all processors.
    ("cpu", torch.float16): (Direct(call=8.9e-5, product=2.0e-10, pixel=4.0e-9, block=1), _FOURIER),
    ("cpu", torch.float64): (Direct(call=8.9e-5, product=2.0e-10, pixel=4.0e-9, block=1), _TWICE),
}


def choose_method(problem: Problem, dtype: torch.dtype, device: str) -> str:
    """The method with which "auto" computes a convolution.

    Args:
        problem: its shape.
        dtype: precision of the result.
        device: kind of device, such as "cpu" or "cuda".

    Returns:
        "direct" or "fft".
    """
    seconds = predicted_seconds(problem, dtype, device)
    return "fft" if "fft" in seconds and seconds["fft"] < CLEARLY_FASTER * seconds["direct"] else "direct"


def predicted_seconds(problem: Problem, dtype: torch.dtype, device: str) -> dict[str, float]:
    """Seconds by method; empty for a precision and a kind of device that the table does not have."""
    if (device, dtype) not in TABLE:
        return {}
    direct, fft = TABLE[device, dtype]
    seconds = {"direct": direct.seconds(problem)}
    return {**seconds, "fft": fft.seconds(problem)} if supports("fft", problem) else seconds


def supports(method: str, problem: Problem) -> bool:
    """True if a method may pay for a shape, its memory in proportion."""
    p = problem
    if method == "direct" or p.kernel_size < SMALLEST_KERNEL:
        return method == "direct"
    height, width = transform_size((p.height, p.width), (p.kernel_size, p.kernel_size))
    spectrum = p.in_channels * p.out_channels * height * (width // 2 + 1)
    return spectrum <= LARGEST_SPECTRUM
