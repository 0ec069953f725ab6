"""Memory that an allocator keeps."""

import functools

import torch


@functools.cache
def keep_freed_memory() -> None:
    """Have glibc's allocator keep up to 64 MiB that are freed, on Linux and once a process.

    Buffers of some MiB would go back to the system after every convolution, and writing to fresh pages takes a third
    as long as a convolution by Fourier transform. Its thresholds follow the largest block it has seen freed, up to
    32 MiB (mallopt(3), M_MMAP_THRESHOLD); other allocators do not mind.
    """
    torch.empty(2**25 - 2**14, dtype=torch.uint8, device="cpu")
