"""Horizontal convolutions by every method, the cost model's choice, and its table fitted to a card.

N: batch; C: channels; S x S: image size; E: kernel size. Everything runs within a solve, whose steps reuse what is
computed from a kernel only.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from math import exp, log
from statistics import mean, median

import numpy as np
import torch
from scipy.optimize import nnls

from crbp_d2.layers.cache import solve_scope
from crbp_d2.layers.convolution import HorizontalConv2d, set_convolution
from crbp_d2.layers.cost_model import Direct, Fourier, Problem, choose_method

from .tables import Table

METHODS = ("direct", "fft")
SMALLEST_FFT = 5
KERNELS, IMAGES, CHANNELS, BATCH = (3, 5, 7, 9, 11, 15), (48, 150), 25, 4


def _square(kernel_size: int, channels: int, image: int, batch: int) -> Problem:
    return Problem(batch, channels, channels, image, image, kernel_size)


# The Pathfinder network's by kernel size; its laptop-size one's, the mask cell's by number of RoIs, the toy model's.
PROBLEMS = (
    *(_square(kernel, CHANNELS, image, BATCH) for image in IMAGES for kernel in KERNELS),
    *(_square(kernel, 8, 48, 16) for kernel in KERNELS),
    *(_square(7, 8, 48, batch) for batch in (1, 64)),
    *(_square(3, 256, 14, batch) for batch in (1, 4, 16, 64)),
    _square(3, 64, 14, 32),
    _square(3, 32, 10, 32),
)


@dataclass(frozen=True)
class MethodTimes:
    """Median seconds of a convolution and its vector-Jacobian product in the input, by method.

    choice: the method that "auto" takes.
    """

    problem: Problem
    precision: str
    seconds: dict[str, float]
    choice: str

    @property
    def loss(self) -> float:
        """Time of the chosen method relative to the fastest."""
        return self.seconds[self.choice] / min(self.seconds.values())


def measure_methods(
    problems: Sequence[Problem] = PROBLEMS,
    dtype: torch.dtype = torch.float32,
    rounds: int = 9,
    device: str = "cpu",
    clock: Callable[[], float] = time.perf_counter,
) -> Iterable[MethodTimes]:
    """One row a problem; the methods take turns in each round."""
    torch.manual_seed(0)
    for p in problems:
        x = torch.rand(p.batch, p.in_channels, p.height, p.width).to(device, dtype).requires_grad_()
        g = torch.rand(p.batch, p.out_channels, p.height, p.width).to(device, dtype)
        convolution = HorizontalConv2d(p.in_channels, p.out_channels, p.kernel_size).to(device, dtype)
        convolution.requires_grad_(False)
        methods = METHODS if p.kernel_size >= SMALLEST_FFT else METHODS[:1]
        taken: dict[str, list[float]] = {method: [] for method in methods}
        with solve_scope():
            for number in range(rounds + 1):
                # The order turns: the first of a round finds other data in the processor's caches.
                for k in range(len(methods)):
                    method = methods[(k + number) % len(methods)]
                    set_convolution(convolution, method)
                    start = clock()
                    torch.autograd.grad(convolution(x), x, g)
                    taken[method].append(clock() - start)
        seconds = {method: median(times[1:]) for method, times in taken.items()}
        precision = str(dtype).removeprefix("torch.")
        if device == "cuda" and dtype == torch.float32 and torch.backends.cudnn.allow_tf32:
            precision = "TF32"
        yield MethodTimes(p, precision, seconds, choose_method(p, dtype, device))


def convolution_table(rows: Sequence[MethodTimes]) -> Table:
    """Milliseconds by method, the choice, and its time relative to the fastest method."""
    headers = ["kernel", "channels", "image", "batch", "precision", *(f"{name}, ms" for name in METHODS), "auto",
               "auto / fastest"]  # fmt: skip
    return Table(
        headers,
        [
            [row.problem.kernel_size, row.problem.in_channels, row.problem.width, row.problem.batch, row.precision,
             *(f"{1000 * row.seconds[m]:.3f}" if m in row.seconds else "-" for m in METHODS), row.choice,
             f"{row.loss:.2f}"]
            for row in rows
        ],
    )  # fmt: skip


def mean_loss(rows: Sequence[MethodTimes], method: str | None = None) -> float:
    """Geometric mean of the time of "auto", or of one method, relative to the fastest."""
    return exp(mean(log(row.seconds[method or row.choice] / min(row.seconds.values())) for row in rows))


def fitted(kind: type, rows: Sequence[MethodTimes], method: str) -> str:
    """The costs of a method, as code, that fit the measured times best."""
    rows = [row for row in rows if method in row.seconds]
    seconds = np.array([row.seconds[method] for row in rows])
    names = [field.name for field in fields(kind) if field.name != "block"]
    found = []
    for fixed in [{"block": block} for block in (1, 8, 16, 32)] if kind is Direct else [{}]:
        units = [kind(**{**dict.fromkeys(names, 0.0), **fixed, name: 1.0}) for name in names]
        matrix = np.array([[unit.seconds(row.problem) for unit in units] for row in rows]) / seconds[:, None]
        scale = np.linalg.norm(matrix, axis=0)
        values, error = nnls(matrix / scale, np.ones(len(rows)))
        found.append((error, dict(zip(names, values / scale, strict=True)), fixed))
    _, values, fixed = min(found, key=lambda fit: fit[0])
    arguments = [*(f"{name}={value:.1e}" for name, value in values.items()), *(f"{k}={v}" for k, v in fixed.items())]
    return f"{kind.__name__}({', '.join(arguments)})"


def cost_rows(rows: Sequence[MethodTimes], device: str) -> str:
    """An entry of the cost model's TABLE fitted to rows of one precision, ready to paste."""
    precision = rows[0].precision
    dtype = "float32" if precision == "TF32" else precision
    costs = [fitted(kind, rows, method) for kind, method in ((Direct, "direct"), (Fourier, "fft"))]
    return f'    # {precision}\n    ("{device}", torch.{dtype}): (\n        ' + ",\n        ".join(costs) + ",\n    ),"
