"""What the drive alone decides is computed once a solve where no graph is recorded."""

import torch
from torch import Tensor, nn

from crbp_d2.layers.transforms import Mark
from crbp_d2.recurrence.scope import solve_cache
from crbp_d2.tracing import is_traced


def driven_by(drive: Tensor, layer: nn.Module) -> Tensor:
    """layer(drive), kept for the other steps of the solve: as long as drive, parameters and autocast are the same."""
    cache = solve_cache()
    if cache is None or torch.is_grad_enabled() or is_traced(drive) or _is_watched(layer):
        return layer(drive)
    kind = drive.device.type
    key = layer, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
    marks, value = cache.get(key, ((), None))
    tensors = drive, *layer.parameters()
    if len(marks) != len(tensors) or not all(map(Mark.is_of, marks, tensors)):
        value = layer(drive)
        cache[key] = [Mark(tensor) for tensor in tensors], value
    return value


def _is_watched(layer: nn.Module) -> bool:
    """Whether hooks or a parametrization may give another result at every call."""
    return any(part._forward_hooks or part._forward_pre_hooks for part in layer.modules()) or any(
        hasattr(part, "parametrizations") for part in layer.modules()
    )
