"""What the horizontal convolutions cost: direct, by Fourier transform, and as "auto" chooses.

N: batch; C: channels; S x S: image size; E: kernel size. All within a solve, whose steps share the
spectrum of a kernel; what it costs to compute it is given beside.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from torch import nn

from crbp_d2.cells import HGRUCell
from crbp_d2.layers.convolution import HorizontalConv2d, horizontal_convolution, set_convolution
from crbp_d2.layers.fourier import Spectrum, transform_size
from crbp_d2.recurrence.scope import solve_scope
from tools.page import markdown_table

from .plots import Panel

KERNELS = (3, 5, 7, 9, 11, 15)
IMAGES = (48, 150)
CHANNELS, BATCH = 25, 4
METHODS = ("direct", "fft", "auto")


@dataclass(frozen=True)
class MethodTimes:
    """Seconds of the same work by each method, medians over rounds in which the methods take turns.

    name: of the work.
    kernel, image: sizes, px.
    auto_ratio: median over the rounds of direct / auto.
    spectrum: seconds to transform the kernels once.
    """

    name: str
    direct: float
    fft: float
    auto: float
    auto_ratio: float
    spectrum: float
    kernel: int = 0
    image: int = 0


@torch.no_grad()
def measure_convolutions(
    kernels: Sequence[int] = KERNELS, images: Sequence[int] = IMAGES, rounds: int = 15
) -> Iterable[MethodTimes]:
    """One convolution, 25 to 25 channels, batch 4, without a graph; one row a kernel and image size."""
    torch.manual_seed(0)
    for image in images:
        x = torch.rand(BATCH, CHANNELS, image, image)
        for kernel in kernels:
            convolution = horizontal_convolution(CHANNELS, CHANNELS, kernel)
            yield _compare(
                f"{kernel} x {kernel}, {image} x {image}", convolution, lambda c=convolution, x=x: c(x), image, rounds
            )


def measure_steps(kernel: int = 15, image: int = 150, rounds: int = 7) -> Iterable[MethodTimes]:
    """A step of the hGRU without a graph, and a vector-Jacobian product through a recorded one."""
    torch.manual_seed(0)
    cell = HGRUCell(CHANNELS, kernel)
    drive = torch.rand(BATCH, CHANNELS, image, image)
    h = torch.rand_like(drive).requires_grad_()
    where = f"{kernel} x {kernel}, {image} x {image}"

    @torch.no_grad()
    def step() -> None:
        cell(drive, (h,))

    yield _compare(f"hGRU step, {where}", cell, step, image, rounds)
    recorded = {}
    with solve_scope():
        for method in METHODS:
            set_convolution(cell, method)
            recorded[method] = cell(drive, (h,))[0]

    def product() -> None:
        new = recorded[cell.excitation.method]
        torch.autograd.grad(new, h, drive, retain_graph=True)

    yield _compare(f"its vector-Jacobian product, {where}", cell, product, image, rounds)


def _compare(name: str, module: nn.Module, work: Callable[[], None], image: int, rounds: int) -> MethodTimes:
    """`work` with the convolutions below `module` set to each method in turn."""
    weights = [part.weight for part in module.modules() if isinstance(part, HorizontalConv2d)]

    def by(method: str) -> float:
        set_convolution(module, method)
        return _seconds(work)

    with solve_scope():
        for method in METHODS:
            by(method)
        # Whichever comes first in a round finds other things in the processor's caches, so the order turns.
        times = [{m: by(m) for m in METHODS[k % 3 :] + METHODS[: k % 3]} for k in range(rounds)]
    size = [transform_size((image, image), weight.shape[-2:]) for weight in weights]
    spectra = [
        sum(_seconds(lambda w=w, s=s: Spectrum(w, s).values) for w, s in zip(weights, size, strict=True))
        for _ in range(3)
    ]
    return MethodTimes(
        name,
        **{method: median(row[method] for row in times) for method in METHODS},
        auto_ratio=median(row["direct"] / row["auto"] for row in times),
        spectrum=median(spectra),
        kernel=weights[0].shape[-1],
        image=image,
    )


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def convolution_panels(rows: Iterable[MethodTimes]) -> list[Panel]:
    """Of what `measure_convolutions` yields: time against kernel size, a curve a method and a panel an image size."""
    by_image: dict[int, list[MethodTimes]] = {}
    for row in rows:
        by_image.setdefault(row.image, []).append(row)
    panels = []
    for image, found in by_image.items():
        kernels = [row.kernel for row in found]
        curves = {method: (kernels, [1000 * getattr(row, method) for row in found]) for method in METHODS}
        panels.append(Panel(f"{image} x {image} px", "kernel size, px", "time, ms", curves, log="y", ticks=kernels))
    return panels


def convolution_section(rows: Iterable[MethodTimes], threads: int) -> str:
    """Markdown of what the two measurements yield."""
    headers = ["work", "direct, ms", "FFT, ms", "auto, ms", "direct / auto", "spectrum, ms"]
    table = [
        [row.name, *(f"{1000 * t:.1f}" for t in (row.direct, row.fft, row.auto)), f"{row.auto_ratio:.2f}",
         f"{1000 * row.spectrum:.1f}"]
        for row in rows
    ]  # fmt: skip
    return (
        f"Horizontal convolutions of {CHANNELS} to {CHANNELS} channels in float32, batch {BATCH}, kernel and image "
        f"size as given, with {threads} threads.\nThe three methods take turns, and each number is a median over the "
        "turns; direct / auto is the median of the\nratios. The spectrum of the kernels is computed once a solve, its "
        "time counts in no other column. The hGRU step\nholds two such convolutions, and its product goes back "
        f"through a recorded step.\n\n{markdown_table(headers, table)}"
    )
