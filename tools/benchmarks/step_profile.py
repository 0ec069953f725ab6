"""Where the time of a training step goes, and how near its convolutions are to what the machine can do."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from tools.page import markdown_table

CONVOLUTIONS, NORMS, POINTWISE, REST = GROUPS = (
    "convolutions, products of matrices", "norms", "pointwise", "copies and the rest"
)  # fmt: skip
# Parts of operators' names.
_NAMES = {
    CONVOLUTIONS: ("conv", "::mm", "::bmm", "::addmm", "::baddbmm", "fft"),
    NORMS: ("norm",),
    POINTWISE: ("softplus", "sigmoid", "::mul", "::add", "::sub", "::neg", "::where", "::clamp", "::exp", "::log",
                "::sin", "::cos", "::ge", "::le", "::gt", "::rsub", "::div", "::pow"),
}  # fmt: skip


@dataclass(frozen=True)
class StepProfile:
    """seconds: by group, of the time in operators. flops: of one step, those of all convolutions and matrix products.

    A complex product of a Fourier transform does not count.
    """

    way: str
    seconds: dict[str, float]
    flops: int

    @property
    def share(self) -> float:
        """Of the convolutions in the whole time."""
        return self.seconds[CONVOLUTIONS] / sum(self.seconds.values())

    @property
    def rate(self) -> float:
        """Operations a second while convolutions run."""
        return self.flops / self.seconds[CONVOLUTIONS]


class _Operations(TorchDispatchMode):
    """Counts floating-point operations by torch's formulas; its own counter does not go with autograd.grad."""

    def __init__(self):
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func._overloadpacket in flop_registry:
            self.total += flop_registry[func._overloadpacket](*args, **kwargs, out_val=result)
        return result


def count_operations(step: Callable[[], object]) -> int:
    """Floating-point operations of the convolutions and matrix products in one call, two a multiply-add."""
    with _Operations() as counter:
        step()
    return counter.total


def group_of(operator: str) -> str:
    """The group of an operator by its name, for instance "aten::mul"."""
    return next((group for group, parts in _NAMES.items() if any(part in operator for part in parts)), REST)


def profile_step(way: str, step: Callable[[], None]) -> StepProfile:
    """Of one run after a first one."""
    step()
    operations = count_operations(step)
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        step()
    seconds = dict.fromkeys(GROUPS, 0.0)
    for operator in profiled.key_averages():
        seconds[group_of(operator.key)] += operator.self_cpu_time_total / 1e6
    return StepProfile(way, seconds, operations)


def peak_rate(size: int = 2048, repeats: int = 7) -> float:
    """Floating-point operations a second by the processor's median time, in float32.

    Of a product of two matrices or, where a library computes that faster, of a convolution of 256 channels.
    """
    a, b = torch.rand(size, size), torch.rand(size, size)
    images = torch.rand(size // 128, 256, 14, 14).contiguous(memory_format=torch.channels_last)
    weight = torch.rand(256, 256, 3, 3)
    works = {
        2 * size**3: lambda: a @ b,
        2 * weight.numel() * len(images) * 14**2: lambda: torch.conv2d(images, weight, padding=1),
    }
    return max(operations / _median_seconds(work, repeats) for operations, work in works.items())


def _median_seconds(work: Callable[[], object], repeats: int) -> float:
    work()
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return statistics.median(seconds)


def profile_section(profiles: dict[str, list[StepProfile]], peak: float) -> str:
    """Markdown: groups by share and time, and what the convolutions reach of the machine's peak.

    Args:
        profiles: of the ways of each problem, the plain reference first.
    """
    rows, bounds = [], []
    for problem, ways in profiles.items():
        for part in ways:
            # The products of spectra are not counted.
            counted = part.rate < peak and part.flops > ways[0].flops / 2
            for group in GROUPS:
                mine = group == CONVOLUTIONS and counted
                rows.append([
                    problem, part.way, group, f"{part.seconds[group]:.3f}",
                    f"{100 * part.seconds[group] / sum(part.seconds.values()):.0f} %",
                    f"{part.flops / 1e9:.0f}" if mine else "-", f"{part.rate / 1e9:.0f}" if mine else "-",
                ])  # fmt: skip
        first = ways[0]
        bounds.append(f"{sum(first.seconds.values()) * peak / first.flops:.2f} times for the {problem}")
    headers = ["problem", "way", "operators", "seconds", "share", "GFLOP", "GFLOP/s"]
    return (
        f"Where a step spends its time, by torch.profiler. The peak here is {peak / 1e9:.0f} GFLOP/s, the faster of a "
        "product of two 2048 x 2048 matrices and a convolution of 256 channels in the same run. With as many "
        "multiply-adds, convolutions at the peak and all else for nothing, a step would be as fast as the plain "
        f"reference {' and '.join(bounds)}; more takes fewer multiply-adds, which a Fourier transform does.\n\n"
    ) + markdown_table(headers, rows)
