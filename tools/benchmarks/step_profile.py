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


def group_of(operator: str) -> str:
    """The group of an operator by its name, for instance "aten::mul"."""
    return next((group for group, parts in _NAMES.items() if any(part in operator for part in parts)), REST)


def profile_step(way: str, step: Callable[[], None]) -> StepProfile:
    """Of one run after a first one."""
    step()
    with _Operations() as counter:
        step()
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        step()
    seconds = dict.fromkeys(GROUPS, 0.0)
    for operator in profiled.key_averages():
        seconds[group_of(operator.key)] += operator.self_cpu_time_total / 1e6
    return StepProfile(way, seconds, counter.total)


def peak_rate(size: int = 2048, repeats: int = 7) -> float:
    """Floating-point operations a second of a product of large float32 matrices, by the processor's median time."""
    a, b = torch.rand(size, size), torch.rand(size, size)
    a @ b
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        a @ b
        seconds.append(time.process_time() - start)
    return 2 * size**3 / statistics.median(seconds)


def profile_section(profiles: list[StepProfile], peak: float) -> str:
    """Markdown: groups by share and time, and what the convolutions reach of the machine's peak."""
    rows = []
    for part in profiles:
        whole = sum(part.seconds.values())
        for group in GROUPS:
            mine = group == CONVOLUTIONS
            rows.append([
                part.way, group, f"{part.seconds[group]:.3f}", f"{100 * part.seconds[group] / whole:.0f} %",
                f"{part.flops / 1e9:.0f}" if mine else "-", f"{part.rate / 1e9:.0f}" if mine else "-",
                f"{100 * part.rate / peak:.0f} %" if mine else "-",
            ])  # fmt: skip
    headers = ["way", "operators", "seconds", "share", "GFLOP", "GFLOP/s", "of the peak"]
    first = profiles[0]
    bound = sum(first.seconds.values()) * peak / first.flops
    return (
        "Where the mask cell's step spends its time, by torch.profiler. The peak is the rate of a product of two\n"
        f"2048 x 2048 matrices in the same run, {peak / 1e9:.0f} GFLOP/s. The convolutions of the {first.way} take "
        f"{100 * first.share:.0f} % of its\nstep at {100 * first.rate / peak:.0f} % of the peak: with as many "
        "multiply-adds, convolutions at the peak and all else for\nnothing, a step would be "
        f"{bound:.2f} times as fast. More takes fewer multiply-adds.\n\n"
    ) + markdown_table(headers, rows)
