"""Parameters and floating-point operations of a model by part, and of its recurrences by step.

fvcore counts one operation for a multiplication with its addition, in convolutions computed directly.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from detectron2.config import CfgNode
from detectron2.utils.analysis import FlopCountAnalysis
from fvcore.nn import FlopCountAnalysis as PlainFlopCountAnalysis
from torch import nn

from crbp_d2.layers.convolution import set_convolution
from crbp_d2.modeling.heads import recurrences, recurrent_heads


@dataclass(frozen=True)
class Part:
    """Parameters and operations of a module, for the input of the analysis."""

    name: str
    parameters: int
    flops: float


@dataclass(frozen=True)
class StepCost:
    """Cost of one cell evaluation on one sample (an RoI or an image).

    name: name of the recurrence. drive: C x H x W of the sample. parameters: number in the cell. flops: per step.
    steps: cell evaluations in inference.
    """

    name: str
    drive: tuple[int, ...]
    parameters: int
    flops: float
    steps: int


def analyze(cfg: CfgNode, model: nn.Module, size: tuple[int, int]) -> tuple[list[Part], list[StepCost], int]:
    """The model's parts, the costs of a step of its recurrences, and how many RoIs its mask head was given.

    Args:
        cfg: config of the model.
        model: is left as it was, since a copy in evaluation mode is run.
        size: H x W of the image, which is noise; the number of RoIs is what the model finds in it.
    """
    generator = torch.Generator().manual_seed(0)
    channels = len(cfg.MODEL.PIXEL_MEAN)
    image = torch.randint(0, 256, (channels, *size), generator=generator, dtype=torch.uint8).to(model.device)
    model = copy.deepcopy(model).eval()
    set_convolution(model, "direct")
    drives: dict[nn.Module, torch.Size] = {}
    for recurrence in recurrences(model).values():
        recurrence.register_forward_pre_hook(lambda module, args: drives.update({module: args[0].shape}))
    with torch.no_grad():
        by_module = _counted(FlopCountAnalysis(model, [{"image": image}])).by_module()
    parts = [Part("model", _parameters(model), by_module[""])]
    # detectron2 wraps the model for tracing, as an attribute of this name.
    parts += [Part(name, _parameters(module), by_module[f"model.{name}"]) for name, module in _parts(model)]
    heads = {head.recurrence: head for head in recurrent_heads(model)}
    costs, rois = [], 0
    for name, recurrence in recurrences(model).items():
        if recurrence not in drives:
            continue
        count, *drive = map(int, drives[recurrence])
        head = heads.get(recurrence)
        if hasattr(head, "deconv"):
            rois = count
        steps = getattr(head, "test_steps", None) or recurrence.solver.steps
        flops = step_flops(recurrence.cell, tuple(drive))
        costs.append(StepCost(name, tuple(drive), _parameters(recurrence.cell), flops, steps))
    return parts, costs, rois


def step_flops(cell: nn.Module, drive: tuple[int, ...]) -> float:
    """Operations of one evaluation of a cell on one sample, C x H x W."""
    device = next(cell.parameters()).device
    one = torch.zeros(1, *drive, device=device)
    with torch.no_grad():
        return float(_counted(PlainFlopCountAnalysis(_Step(cell), (one, *cell.initial_state(one)))).total())


def _counted(analysis: PlainFlopCountAnalysis) -> PlainFlopCountAnalysis:
    return analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")


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
