"""Cost of each learning rule, and the distance of its gradient from that of the fixed point.

Measured on h' = tanh(W h + V z) with W scaled so that the Jacobian at the fixed point has a spectral
radius of 0.9. N: samples; D: elements of the state.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from crbp_d2.recurrence import RULES, Anderson, UnconvergedWarning, learning_rule
from crbp_d2.recurrence.state import State
from crbp_d2.utils.files import write_text
from tools.page import with_generated

PAGE = Path(__file__).resolve().parents[2] / "docs/CHOOSING_A_RULE.md"
RATE = 0.9
STEPS = (6, 20, 80)
TRUNCATION, TERMS = 3, 15
SAMPLES, SIZE = 16, 32


class _Counted(torch.autograd.Function):
    """Identity that counts how often a gradient passes it."""

    @staticmethod
    def forward(ctx, count: Callable[[], None], x: Tensor) -> Tensor:
        ctx.count = count
        return x.view_as(x)

    @staticmethod
    def backward(ctx, g: Tensor):
        ctx.count()
        return None, g


class TanhContraction(nn.Module):
    """h' = tanh(W h + V z), counting its evaluations and the gradients that pass it. drive, state: N x D."""

    channels = SIZE

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(SIZE, SIZE, generator=generator, dtype=torch.float64) / SIZE**0.5)
        self.input = nn.Parameter(torch.randn(SIZE, SIZE, generator=generator, dtype=torch.float64) / SIZE**0.5)
        self.evaluations = self.products = 0

    def initial_state(self, drive: Tensor) -> State:
        return (torch.zeros_like(drive),)

    def forward(self, drive: Tensor, state: State) -> State:
        self.evaluations += 1
        (h,) = state
        return (_Counted.apply(self._count, torch.tanh(h @ self.weight.T + drive @ self.input.T)),)

    def _count(self) -> None:
        self.products += 1


@dataclass(frozen=True)
class RuleCost:
    """One row: a rule at each of STEPS.

    held: bytes autograd holds between forward and backward pass.
    error: ||gradient - truth|| / ||truth|| over all parameters, truth that of the fixed point.
    evaluations: number of the cell's in the forward pass.
    products: passes of a gradient through one step, in the backward pass (each costs about one to two
        evaluations).
    """

    rule: str
    held: tuple[int, ...]
    error: tuple[float, ...]
    evaluations: tuple[int, ...]
    products: tuple[int, ...]


def compare_rules() -> list[RuleCost]:
    """Every row of RULES with the paper's settings (15 terms, truncation 3)."""
    cell, drive = _problem()
    truth = _dense_gradient(cell, drive)
    return [_measure(rule, cell, drive, truth) for rule in RULES]


def _problem() -> tuple[TanhContraction, Tensor]:
    cell = TanhContraction()
    drive = 0.3 * torch.randn(SAMPLES, SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    direction = cell.weight.detach().clone()
    low, high = 0.0, 2.0
    for _ in range(40):
        scale = (low + high) / 2
        with torch.no_grad():
            cell.weight.copy_(scale * direction)
        radius = torch.linalg.eigvals(_jacobian(cell, *_fixed_point(cell, drive))).abs().max().item()
        low, high = (scale, high) if radius < RATE else (low, scale)
    return cell, drive


@torch.no_grad()
def _fixed_point(cell: TanhContraction, drive: Tensor) -> State:
    solver = Anderson(memory=10, tol=1e-14, max_steps=300)
    return solver.solve(lambda h: cell(drive, h), cell.initial_state(drive)).state


def _loss(state: State) -> Tensor:
    weights = torch.linspace(0.5, 2, SIZE, dtype=state[0].dtype)
    return (weights * state[0]).sin().sum()


def _dense_gradient(cell: TanhContraction, drive: Tensor) -> Tensor:
    """u dF/dw with u (I - J) = dL/dh solved densely."""
    (h,) = _fixed_point(cell, drive)
    weights = torch.linspace(0.5, 2, SIZE, dtype=h.dtype)
    g = weights * (weights * h).cos()
    identity = torch.eye(SIZE, dtype=h.dtype)
    u = torch.linalg.solve((identity - _jacobian(cell, h)).mT, g[..., None])[..., 0]
    pushed = u * (1 - h**2)
    return torch.cat([(pushed.T @ h).flatten(), (pushed.T @ drive).flatten()])


def _jacobian(cell: TanhContraction, h: Tensor) -> Tensor:
    """N x D x D, at a fixed point h."""
    return (1 - h**2)[:, :, None] * cell.weight.detach()


def _measure(rule: str, cell: TanhContraction, drive: Tensor, truth: Tensor) -> RuleCost:
    held, error, evaluations, products = [], [], [], []
    for steps in STEPS:
        recurrence = learning_rule(rule, cell, steps=steps, truncation=TRUNCATION, num_terms=TERMS, tol=1e-10)
        cell.evaluations = cell.products = 0
        storages: dict[int, int] = {}

        def hold(tensor: Tensor, storages=storages) -> Tensor:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnconvergedWarning)
            with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
                output = recurrence(drive, steps=steps)
            evaluations.append(cell.evaluations)
            read = [state for _, state in output.supervised]
            # The penalty counts towards the cost with weight 0, so that it does not change the gradient.
            loss = sum(_loss(state) for state in read) / len(read) + 0 * output.penalty
            found = torch.autograd.grad(loss, list(cell.parameters()))
        held.append(sum(storages.values()))
        products.append(cell.products)
        error.append(((torch.cat([f.flatten() for f in found]) - truth).norm() / truth.norm()).item())
    return RuleCost(rule, tuple(held), tuple(error), tuple(evaluations), tuple(products))


def rules_table(rows: list[RuleCost]) -> str:
    """The rows as a Markdown table; each cell gives the values at STEPS."""
    lines = [
        "| rule | saved for backward, KiB | gradient error | evaluations forward | products backward |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        cells = (
            " / ".join(f"{value / 1024:.0f}" for value in row.held),
            " / ".join("< 1e-8" if value < 1e-8 else f"{value:.1e}" for value in row.error),
            " / ".join(map(str, row.evaluations)),
            " / ".join(map(str, row.products)),
        )
        lines.append(f"| {row.rule} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    write_text(PAGE, with_generated(PAGE.read_text(), "costs", rules_table(compare_rules())))
