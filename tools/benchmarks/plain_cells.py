"""The benchmarks' reference: the cells as one writes them down, in torch's operators."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crbp_d2.cells import GalaHGRUCell, HGRUCell
from crbp_d2.recurrence.state import State


class PlainHGRUCell(nn.Module):
    """An HGRUCell of the printed form with batch norm; it shares the parameters of one."""

    def __init__(self, cell: HGRUCell):
        super().__init__()
        self.cell = cell

    def forward(self, drive: Tensor, state: State) -> State:
        """One step. drive: N x C x H x W; state: one tensor of the same shape."""
        (h,), cell = state, self.cell
        gate = torch.sigmoid(_convolve(h, cell.input_gate))
        inhibition = cell.inhibition_norm(_convolve(h * gate, cell.inhibition))
        suppressed = F.softplus(drive - F.softplus((cell.alpha * h + cell.mu) * inhibition))
        update = torch.sigmoid(_convolve(suppressed, cell.update_gate))
        excitation = cell.excitation_norm(_convolve(suppressed, cell.excitation))
        candidate = F.softplus(cell.nu * (excitation + suppressed) + cell.omega * excitation * suppressed)
        return ((1 - update) * h + update * candidate,)


class PlainGalaHGRUCell(nn.Module):
    """A GalaHGRUCell; it shares the parameters of one."""

    def __init__(self, cell: GalaHGRUCell):
        super().__init__()
        self.cell = cell

    def forward(self, drive: Tensor, state: State) -> State:
        """One step. drive: N x C x H x W; state: one tensor of the same shape."""
        (h,), cell = state, self.cell
        channel = _convolve(F.softplus(_convolve(h, cell.channel_gate_1)), cell.channel_gate_2)
        spatial = _convolve(F.softplus(_convolve(h, cell.spatial_gate_1)), cell.spatial_gate_2)
        gate = torch.sigmoid(channel * spatial + cell.gate_bias)
        inhibition = cell.inhibition_norm(_convolve(h * gate, cell.inhibition))
        suppressed = F.softplus(drive - inhibition * (cell.alpha * h + cell.mu))
        update = torch.sigmoid(_convolve(suppressed, cell.update_gate))
        return ((1 - update) * h + update * F.softplus(cell.excitation_norm(_convolve(suppressed, cell.excitation))),)


PLAIN: dict[type, Callable[..., nn.Module]] = {HGRUCell: PlainHGRUCell, GalaHGRUCell: PlainGalaHGRUCell}


def plain(cell: nn.Module) -> nn.Module:
    """The plain cell with the parameters of a cell in PLAIN."""
    return PLAIN[type(cell)](cell)


def _convolve(x: Tensor, layer: nn.Conv2d) -> Tensor:
    return F.conv2d(x, layer.weight, layer.bias, padding=layer.kernel_size[0] // 2)
