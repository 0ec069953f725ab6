"""Parameters and floating-point operations of a model by part, and of its recurrences by step.

fvcore counts one operation for a multiplication with its addition, in convolutions computed directly.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.utils.analysis import FlopCountAnalysis
from fvcore.nn import FlopCountAnalysis as PlainFlopCountAnalysis
from torch import nn

from crbp_d2.layers.convolution import set_convolution
from crbp_d2.modeling.heads import recurrent_heads


@dataclass(frozen=True)
class Part:
    """One row.

    name: of the module; parameters: their number; flops: for the input of the analysis.
    """

    name: str
    parameters: int
    flops: float


@dataclass(frozen=True)
class StepCost:
    """Of a recurrence: what one cell evaluation costs on one sample (an RoI or an image).

    name: of the module. drive: C x H x W of the sample. parameters: of the cell. flops: of a step.
    steps: cell evaluations in inference.
    """

    name: str
    drive: tuple[int, ...]
    parameters: int
    flops: float
    steps: int


class _Shapes:
    """Drives that recurrences were given, by module."""

    def __init__(self, model: nn.Module):
        self.found: dict[nn.Module, torch.Size] = {}
        self.handles = [
            head.recurrence.register_forward_pre_hook(self._see, with_kwargs=True) for head in recurrent_heads(model)
        ]

    def _see(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict) -> None:
        self.found[module] = args[0].shape

    def close(self) -> None:
        for handle in self.handles:
            handle.remove()


def analyze(cfg: CfgNode, model: nn.Module, size: tuple[int, int]) -> tuple[list[Part], list[StepCost], int]:
    """The model's parts, the costs of a step of its recurrences, and how many RoIs its mask head was given.

    Args:
        cfg: of the model.
        model: in evaluation mode.
        size: H x W of the image, which is noise; the number of RoIs is what the model finds in it.
    """
    generator = torch.Generator().manual_seed(0)
    channels = len(cfg.MODEL.PIXEL_MEAN)
    image = torch.randint(0, 256, (channels, *size), generator=generator, dtype=torch.uint8).to(model.device)
    set_convolution(model, "direct")
    shapes = _Shapes(model)
    try:
        with torch.no_grad():
            counted = FlopCountAnalysis(model, [{"image": image}])
            counted.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
            by_module = counted.by_module()
    finally:
        shapes.close()
    parts = [Part("model", _parameters(model), by_module[""])]
    # detectron2 wraps the model for tracing, as an attribute of this name.
    parts += [Part(name, _parameters(module), by_module[f"model.{name}"]) for name, module in _parts(model)]
    names = {module: name for name, module in model.named_modules()}
    costs, rois = [], 0
    for head in recurrent_heads(model):
        recurrence = head.recurrence
        if recurrence not in shapes.found:
            continue
        shape = shapes.found[recurrence]
        if hasattr(head, "deconv"):
            rois = shape[0]
        costs.append(
            StepCost(
                names[recurrence],
                tuple(shape[1:]),
                _parameters(recurrence.cell),
                step_flops(recurrence.cell, shape[1:]),
                head.test_steps or recurrence.solver.steps,
            )
        )
    return parts, costs, rois


def step_flops(cell: nn.Module, drive: tuple[int, ...]) -> float:
    """Operations of one evaluation of a cell on one sample, C x H x W."""
    device = next(cell.parameters()).device
    one = torch.zeros(1, *drive, device=device)
    with torch.no_grad():
        counted = PlainFlopCountAnalysis(_Step(cell), (one, *cell.initial_state(one)))
        counted.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
        return float(counted.total())


class _Step(nn.Module):
    def __init__(self, cell: nn.Module):
        super().__init__()
        self.cell = cell

    def forward(self, drive: torch.Tensor, *state: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.cell(drive, state)


def _parts(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, module in model.named_children():
        yield name, module
        if name == "roi_heads":
            yield from ((f"{name}.{child}", module_) for child, module_ in module.named_children())


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
