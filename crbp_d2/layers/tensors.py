"""Precision, layout and memory of tensors."""

import functools

import torch
from torch import Tensor, channels_last, contiguous_format, memory_format


def widen(tensor: Tensor) -> Tensor:
    """Half precision to float32, anything else as it is: sums over a state overflow or stall in half precision."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def is_channels_last(x: Tensor) -> bool:
    """Whether images lie in that layout in memory, and not in the usual one as well."""
    return x.dim() == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=channels_last)


def layout_of(x: Tensor) -> memory_format:
    """That in which images lie, the usual one where they lie in both."""
    return channels_last if is_channels_last(x) else contiguous_format


@functools.cache
def keep_freed_memory() -> None:
    """Have glibc's allocator keep up to 64 MiB that are freed, on Linux and once a process.

    Buffers of some MiB would go back to the system after every convolution, and writing to fresh pages takes a third
    as long as a convolution by Fourier transform. Its thresholds follow the largest block it has seen freed, up to
    32 MiB (mallopt(3), M_MMAP_THRESHOLD); other allocators do not mind.
    """
    torch.empty(2**25 - 2**14, dtype=torch.uint8, device="cpu")
