"""This page on a GPU, in one section: convolutions, training steps, memory, many objects."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from crbp_d2.layers.cost_model import Problem
from crbp_d2.recurrence import learning_rule
from tools.page import markdown_table

from .convolution import METHODS, PROBLEMS, measure_methods
from .many_objects import (
    DETECTIONS,
    POSITIVES,
    inference_models,
    measure_inference,
    measure_training,
    ratios_table,
    training_models,
)
from .training_step import (
    ACCELERATED,
    STEPS,
    TERMS,
    compare_steps,
    mask_problem,
    pathfinder_problem,
    recurrence_step,
)
from .training_step import (
    Problem as TrainingProblem,
)
from .whole_model import IMAGE

NOT_RUN = "Not run: there is no GPU here."


@dataclass(frozen=True)
class Work:
    """What is measured on a device, at the sizes of this page unless something else is given.

    step_problems: (problem, a smaller one for the gradients' errors) by name in ACCELERATED.
    memory_steps: numbers of steps at which peaks are taken.
    """

    device: str = "cuda"
    repeats: int = 7
    convolutions: Sequence[Problem] = PROBLEMS
    step_problems: dict[str, tuple[TrainingProblem, TrainingProblem]] = field(
        default_factory=lambda: {
            "mask cell": (mask_problem(64), mask_problem(2)),
            "Pathfinder hGRU": (pathfinder_problem(32), pathfinder_problem(2, size=48)),
        }
    )
    memory_steps: Sequence[int] = (1, 5, 20, 80)
    detections: Sequence[int] = DETECTIONS
    positives: Sequence[int] = POSITIVES
    image: tuple[int, int] = IMAGE
    inference_models: Callable[[], dict[str, nn.Module]] = inference_models
    training_models: Callable[[int], dict[str, nn.Module]] = training_models

    def clock(self) -> float:
        """Seconds since some moment, once the device has done what it was given."""
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def peak(self, run: Callable[[], None]) -> float:
        """MiB that `run` takes at most beyond what was in use before; 0 where the device does not count them."""
        if self.device != "cuda":
            run()
            return 0.0
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20


def cuda_section(work: Work) -> str:
    """Markdown of everything."""
    parts = [
        f"Medians of {work.repeats} rounds in which all ways had their turn, the device idle before and after each.",
        f"A convolution and its vector-Jacobian product in the input, ms:\n\n{_convolutions(work)}",
        f"One C-RBP training step of {STEPS} evaluations and {TERMS} products, as in A C-RBP training step:\n\n"
        + _steps(work),
        f"Peak memory of a training step of t steps above what was in use before, MiB:\n\n{_memory(work)}",
        "Inference with so many detections, as in Inference with many objects:\n\n"
        + ratios_table(
            measure_inference(work.inference_models(), work.detections, work.repeats, work.image, work.clock),
            "detections",
        ),
        "A training step with so many positive RoIs, as in Training with many objects:\n\n"
        + ratios_table(
            measure_training(work.training_models, work.positives, work.image, work.clock, work.repeats),
            "positive RoIs",
        ),
    ]
    return "\n\n".join(parts)


def _convolutions(work: Work) -> str:
    rows = []
    for dtype in (torch.float32, torch.bfloat16):
        for row in measure_methods(work.convolutions, dtype, work.repeats, work.device, work.clock):
            p = row.problem
            cells = [f"{1000 * row.seconds[m]:.3f}" if m in row.seconds else "-" for m in METHODS]
            shape = f"{p.batch} x {p.in_channels} x {p.height} x {p.width}"
            rows.append([p.kernel_size, shape, str(dtype).removeprefix("torch."), *cells, row.choice])
    return markdown_table(["kernel", "images", "precision", *METHODS, "auto"], rows)


def _steps(work: Work) -> str:
    rows = [
        row
        for name, (problem, small) in work.step_problems.items()
        for row in compare_steps(problem.on(work.device), small, ACCELERATED[name], work.repeats, work.clock)
    ]
    headers = ["problem", "way", "evaluations", "products", "seconds", "times as fast", "gradient error"]
    return markdown_table(headers, rows)


def _memory(work: Work) -> str:
    problem = next(iter(work.step_problems.values()))[0].on(work.device)
    rows = []
    for rule in ("bptt", "rbp", "crbp"):
        peaks = []
        for steps in work.memory_steps:
            recurrence = learning_rule(rule, problem.cell, steps=steps, num_terms=TERMS)
            recurrence_step(problem, recurrence)
            peaks.append(f"{work.peak(lambda r=recurrence: recurrence_step(problem, r)):.0f}")
        rows.append([rule, *peaks])
    return markdown_table(["rule", *(f"t = {steps}" for steps in work.memory_steps)], rows)
