"""Precision, layout and memory of tensors."""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor, channels_last, contiguous_format, memory_format

# Channels from which oneDNN's 3 x 3 kernels are faster in the channels-last layout, norms and pointwise work included.
WIDE = 64


def widen(tensor: Tensor) -> Tensor:
    """Half precision to float32, in which sums over a state do not overflow or stall; other precisions as they are."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def result_dtype(x: Tensor) -> torch.dtype:
    """The precision of a direct convolution of x, under autocast or not."""
    if torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:
        return torch.get_autocast_dtype(x.device.type)
    return x.dtype


def is_channels_last(x: Tensor) -> bool:
    """True if images are channels-last in memory, and not contiguous as well."""
    return x.dim() == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=channels_last)


def layout_of(x: Tensor) -> memory_format:
    """The memory format of images, the contiguous one where they have both."""
    return channels_last if is_channels_last(x) else contiguous_format


def empty_result(shape: torch.Size, tensors: Sequence[Tensor]) -> Tensor:
    """An uninitialized tensor, in the memory format of the first of the tensors that has its shape."""
    like = next((tensor for tensor in tensors if tensor.shape == shape), tensors[0])
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=layout_of(like))


def preferred_layout(channels: int, device: str) -> memory_format:
    """The memory format in which a cell of 3 x 3 convolutions is faster, from its drive on.

    Args:
        channels: channels of the cell.
        device: kind of device, such as "cpu".
    """
    wide = device == "cpu" and channels >= WIDE
    return channels_last if wide else contiguous_format


@functools.cache
def keep_freed_memory() -> None:
    """Have glibc's allocator keep up to 64 MiB that are freed, on Linux and once a process.

    Buffers of some MiB would return to the system after every convolution, and writing to fresh pages takes a third
    as long as a convolution by Fourier transform. The allocator's thresholds follow the largest block that it has seen
    freed, up to 32 MiB (mallopt(3), M_MMAP_THRESHOLD); other allocators do not mind.
    """
    torch.empty(2**25 - 2**14, dtype=torch.uint8, device="cpu")
