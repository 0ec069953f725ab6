"""A training step and an inference of a cell by a rule, held against the same in float32 on the CPU."""

from contextlib import nullcontext

import torch

from crbp_d2.cells import build_cell
from crbp_d2.layers.convolution import set_convolution
from crbp_d2.recurrence import learning_rule

METHODS = [("auto", 3), ("direct", 3), ("channels_last", 5), ("fft", 5), ("winograd", 3)]
# weights and drive; autocast; largest relative error of states, and of gradients
PRECISIONS = {
    "float32": (torch.float32, None, 1e-4, 1e-3),
    "bfloat16 autocast": (torch.float32, torch.bfloat16, 0.01, 0.04),
    "bfloat16 weights": (torch.bfloat16, None, 0.01, 0.04),
    "float16 weights": (torch.float16, None, 0.002, 0.01),
}
SETTINGS = {"steps": 4, "truncation": 2, "num_terms": 3}


def error(found, truth):
    """Relative, of all tensors together."""
    found, truth = (torch.cat([part.detach().cpu().double().flatten() for part in parts]) for parts in (found, truth))
    return ((found - truth).norm() / truth.norm()).item()


def trained(rule, cell, drive, context):
    """State of a training run and gradients of all parameters and the drive."""
    drive = drive.clone().requires_grad_()
    recurrence = learning_rule(rule, cell, **SETTINGS)
    with context:
        output = recurrence(drive)
    state = output.states[-1] if recurrence.supervision == "every" else output.state
    loss = sum(part.float().sin().sum() for part in state) + 1e-3 * output.penalty.float()
    return state, torch.autograd.grad(loss, [drive, *cell.parameters()], allow_unused=True)


def check_agreement(rule, name, method, kernel_size, precision, device="cpu"):
    """Assert that states and gradients are those of float32 on the CPU, as near as the precision allows."""
    dtype, autocast, of_states, of_gradients = PRECISIONS[precision]
    torch.manual_seed(0)
    cell = build_cell(name, 8, kernel_size=kernel_size, norm="GN", timescale=4).to(device, dtype)
    exact = build_cell(name, 8, kernel_size=kernel_size, norm="GN", timescale=4)
    exact.load_state_dict(cell.state_dict())
    set_convolution(cell, method)
    set_convolution(exact, "direct")
    drive = torch.randn(2, 8, 9, 8).to(dtype)
    context = torch.autocast(device, autocast) if autocast else nullcontext()
    state, gradients = trained(rule, cell, drive.to(device), context)
    truth, true_gradients = trained(rule, exact, drive.float(), nullcontext())
    assert error(state, truth) < of_states
    kept = [(g, t) for g, t in zip(gradients, true_gradients, strict=True) if t is not None]
    assert all(g.isfinite().all() for g, _ in kept)
    assert error(*zip(*kept, strict=True)) < of_gradients
    recurrence = learning_rule(rule, cell, **SETTINGS).eval()
    with torch.no_grad(), torch.autocast(device, autocast) if autocast else nullcontext():
        inferred = recurrence(drive.to(device), steps=4).state
    with torch.no_grad():
        expected = learning_rule(rule, exact, **SETTINGS).eval()(drive.float(), steps=4).state
    assert error(inferred, expected) < of_states
