"""Small recurrences whose fixed point, Jacobian and gradients are known by other means than the package's.

A state of N samples is flattened to N x D, D over all tensors of the state; a dense Jacobian is N x D x D
with entry [n, i, j] = d h'_i / d h_j of sample n.
"""

from inspect import signature
from math import prod

import torch
from torch import Tensor, nn

from crbp_d2.recurrence import RULES

# Rules that take a fixed number of plain steps.
PLAIN = [name for name, rule in RULES.items() if signature(rule).parameters["solver"].default == "FixedSteps"]


class TanhCell(nn.Module):
    """h' = tanh(W h + V z); a contraction of rate `rate` near zero. drive, state: N x size."""

    def __init__(self, size: int = 5, rate: float = 0.7, seed: int = 0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        weight = torch.randn(size, size, generator=generator, dtype=torch.float64)
        self.weight = nn.Parameter(rate * weight / torch.linalg.matrix_norm(weight, ord=2))
        self.input = nn.Parameter(torch.randn(size, size, generator=generator, dtype=torch.float64) / size**0.5)
        self.channels = size

    def initial_state(self, drive):
        return (torch.zeros_like(drive),)

    def forward(self, drive, state):
        (h,) = state
        return (torch.tanh(h @ self.weight.T + drive @ self.input.T),)


class CoupledCell(nn.Module):
    """Two coupled tensors of different shapes, N x 3 and N x 2 x 2; neither can be solved without the other."""

    def __init__(self, seed: int = 1, rate: float = 0.8):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        weight = torch.randn(7, 7, generator=generator, dtype=torch.float64)
        self.weight = nn.Parameter(rate * weight / torch.linalg.matrix_norm(weight, ord=2))
        self.input = nn.Parameter(torch.randn(7, 5, generator=generator, dtype=torch.float64) / 5**0.5)
        self.channels = 5

    def initial_state(self, drive):
        return drive.new_zeros(len(drive), 3), drive.new_zeros(len(drive), 2, 2)

    def forward(self, drive, state):
        h, c = state
        joint = torch.tanh(torch.cat([h, c.flatten(1)], dim=1) @ self.weight.T + drive @ self.input.T)
        return joint[:, :3], joint[:, 3:].reshape(-1, 2, 2)


class LinearCell(nn.Module):
    """h' = W h + z for a given matrix W. drive, state: N x size."""

    def __init__(self, matrix: Tensor):
        super().__init__()
        self.weight = nn.Parameter(matrix.clone())
        self.channels = len(matrix)

    def initial_state(self, drive):
        return (torch.zeros_like(drive),)

    def forward(self, drive, state):
        return (state[0] @ self.weight.T + drive,)


PROBLEMS = {"tanh": TanhCell, "coupled": CoupledCell}


def drive_for(cell: nn.Module, samples: int = 3, seed: int = 7) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(samples, cell.channels, generator=generator, dtype=torch.float64)


def flat(state) -> Tensor:
    """N x D."""
    return torch.cat([part.flatten(1) for part in state], dim=1)


def split(vector: Tensor, like) -> tuple[Tensor, ...]:
    sizes = [prod(part.shape[1:]) for part in like]
    return tuple(v.reshape(part.shape) for v, part in zip(vector.split(sizes, dim=1), like, strict=True))


def iterate(cell, drive, steps: int):
    """The state after `steps` plain steps, without a graph."""
    with torch.no_grad():
        state = cell.initial_state(drive)
        for _ in range(steps):
            state = cell(drive, state)
    return state


def dense_jacobian(cell, drive, state, create_graph: bool = False) -> Tensor:
    """N x D x D, sample by sample, row by row."""
    blocks = []
    for n in range(len(drive)):
        one = tuple(part[n : n + 1].detach() for part in state)

        def step(vector, n=n, one=one):
            return flat(cell(drive[n : n + 1], split(vector[None], one)))[0]

        blocks.append(torch.autograd.functional.jacobian(step, flat(one)[0], create_graph=create_graph))
    return torch.stack(blocks)


def push(cell, drive, state, u: Tensor) -> list[Tensor]:
    """u dF/dw for every parameter and the drive, from one step at `state`; u: N x D."""
    wanted = [*cell.parameters(), drive]
    new = flat(cell(drive, tuple(part.detach() for part in state)))
    return list(torch.autograd.grad(new, wanted, u))


def loss_of(state) -> Tensor:
    """A loss that weighs every element differently."""
    vector = flat(state)
    return (vector * torch.linspace(0.5, 2, vector.numel(), dtype=vector.dtype).view_as(vector)).sin().sum()


def gradients(cell, drive, loss) -> tuple[Tensor, ...]:
    """Gradients of every parameter and the drive."""
    return torch.autograd.grad(loss, [*cell.parameters(), drive])
