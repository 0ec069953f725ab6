"""A training step and an inference of a cell by a rule, compared with the same in float32 on the CPU."""

import functools

import torch

from crbp_d2.cells import build_cell
from crbp_d2.layers.convolution import set_convolution
from crbp_d2.recurrence import learning_rule

METHODS = [("auto", 3), ("direct", 3), ("fft", 5)]
# weights and drive; autocast; largest relative error of states, and of gradients
PRECISIONS = {
    "float32": (torch.float32, None, 1e-4, 1e-3),
    "bfloat16 autocast": (torch.float32, torch.bfloat16, 0.01, 0.04),
    "bfloat16 weights": (torch.bfloat16, None, 0.01, 0.04),
    "float16 weights": (torch.float16, None, 0.002, 0.01),
}
SETTINGS = {"steps": 4, "truncation": 2, "num_terms": 3}


def error(found, truth):
    """Relative error over all tensors together."""
    found, truth = (torch.cat([part.detach().cpu().double().flatten() for part in parts]) for parts in (found, truth))
    return ((found - truth).norm() / truth.norm()).item()


def cell_and_drive(name, kernel_size, dtype):
    torch.manual_seed(0)
    cell = build_cell(name, 8, kernel_size=kernel_size, norm="GN", timescale=4).to(dtype)
    return cell, torch.randn(2, 8, 9, 8).to(dtype)


def results(rule, cell, drive, autocast=None):
    """State of a training run, gradients of the drive and all parameters, and state of an inference."""
    drive = drive.clone().requires_grad_()
    recurrence = learning_rule(rule, cell, **SETTINGS)
    # The same random step counts as in the run it is compared with.
    torch.manual_seed(1)
    context = torch.autocast(drive.device.type, autocast, enabled=autocast is not None)
    with context:
        output = recurrence(drive)
    state = output.states[-1] if recurrence.supervision == "every" else output.state
    loss = sum(part.float().sin().sum() for part in state) + 1e-3 * output.penalty.float()
    gradients = torch.autograd.grad(loss, [drive, *cell.parameters()], allow_unused=True)
    with torch.no_grad(), context:
        inferred = learning_rule(rule, cell, **SETTINGS).eval()(drive, steps=4).state
    return [part.detach() for part in state], gradients, inferred


@functools.cache
def truth(rule, name, kernel_size, dtype):
    """In float32 on the CPU by direct convolutions, with weights and a drive that are rounded to `dtype`."""
    cell, drive = cell_and_drive(name, kernel_size, dtype)
    set_convolution(cell.float(), "direct")
    return results(rule, cell, drive.float())


def check_agreement(rule, name, method, kernel_size, precision, device="cpu"):
    """Assert that states and gradients are those of float32 on the CPU, as near as the precision allows."""
    dtype, autocast, of_states, of_gradients = PRECISIONS[precision]
    cell, drive = cell_and_drive(name, kernel_size, dtype)
    set_convolution(cell.to(device), method)
    state, gradients, inferred = results(rule, cell, drive.to(device), autocast)
    true_state, true_gradients, expected = truth(rule, name, kernel_size, dtype)
    assert error(state, true_state) < of_states
    kept = [(g, t) for g, t in zip(gradients, true_gradients, strict=True) if t is not None]
    assert all(g.isfinite().all() for g, _ in kept)
    assert error(*zip(*kept, strict=True)) < of_gradients
    assert error(inferred, expected) < of_states
