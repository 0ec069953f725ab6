"""Element-wise chains of operators, evaluated and differentiated a slice at a time, and the softplus of the cells.

On a CPU a chain over large tensors waits for memory at every operator; slices of it stay in the processor's cache. Its
graph holds the arguments only, and the chain is evaluated again where it is differentiated. A step that serves a series
of products keeps partial derivatives instead: an element of the result depends on one element of each argument, so
every product is a multiplication by them. Second derivatives are plain autograd's.
"""

import functools
import inspect
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F

from crbp_d2.utils.tracing import is_batched, is_traced

from .bilinear import Join
from .cache import serves_many_products
from .tensors import empty_result, is_channels_last, widen

Function = Callable[..., Tensor]
Tensors = Sequence[Tensor]

# Elements up to which a chain is left to plain operators, 2 MiB in float32, and those of a slice of a larger one.
WHOLE, SLICE = 2**19, 2**17


def fused(fixed: Sequence[str] = ()) -> Callable[[Function], Function]:
    """Decorate an element-wise function of tensors, given by position; only its speed changes.

    The function consists of plain differentiable operators, and an element of its result depends on one element of
    each argument, after broadcasting. It is called plainly for small tensors, away from CPUs, in half precision, where
    torch traces or transforms the call, and where it draws random numbers or holds other tensors of its own.

    Args:
        fixed: names of the arguments that do not depend on the state of a recurrence, such as drives and parameters:
            a series of products does not ask for their gradients.
    """

    def decorate(function: Function) -> Function:
        of_state = [name not in fixed for name in inspect.signature(function).parameters]

        @functools.wraps(function)
        def call(*tensors: Tensor) -> Tensor:
            result = _evaluated(function, tensors) if _can_be_sliced(tensors) else None
            if result is None:
                return function(*tensors)
            return _connected(function, result, tensors, of_state) if torch.is_grad_enabled() else result

        return call

    return decorate


def _can_be_sliced(tensors: Tensors) -> bool:
    # Nearly all calls but those of large images end here.
    if torch.compiler.is_compiling() or max(tensor.numel() for tensor in tensors) <= WHOLE:
        return False
    first = tensors[0]
    plain = first.device.type == "cpu" and first.dtype in (torch.float32, torch.float64)
    alike = all(tensor.device == first.device and tensor.dtype == first.dtype for tensor in tensors)
    return plain and alike and not any(map(is_traced, tensors)) and not is_batched(tensors)


def _evaluated(function: Function, tensors: Tensors) -> Tensor | None:
    """The value without a graph; None where it depends on more than the slices of the tensors."""
    shape = torch.broadcast_shapes(*(tensor.shape for tensor in tensors))
    result, drawn = empty_result(shape, tensors), torch.get_rng_state()
    for out, *parts in _slices(shape, result, *(tensor.detach() for tensor in tensors)):
        try:
            value = function(*parts)
        except RuntimeError:  # A tensor that the function holds fits the whole only.
            return None
        # The parts have no graph: if the value has one, the function holds a tensor that requires a gradient.
        if value.requires_grad or value.shape != out.shape or value.dtype != out.dtype:
            return None
        out.copy_(value)
    if not torch.equal(torch.get_rng_state(), drawn):
        torch.set_rng_state(drawn)
        return None
    return result


def _connected(function: Function, result: Tensor, tensors: Tensors, of_state: Sequence[bool]) -> Tensor:
    """The result with a graph: of a step that serves a series one node for the state and one for the rest."""
    wanted = [k for k, tensor in enumerate(tensors) if tensor.requires_grad]
    groups = [group for state in (True, False) if (group := [k for k in wanted if of_state[k] == state])]
    series, saves = serves_many_products(), 1
    if groups and not series:
        # One node saves as often as two: a checkpoint of the step repeats it without knowing of the series.
        groups, saves = [wanted], len(groups)
    for group in groups:
        keep = series and of_state[group[0]]
        zero = _Gradients.apply(function, keep, group, tuple(tensors), saves, *(tensors[k] for k in group))
        result = Join.apply(result, zero)
    return result


class _Gradients(torch.autograd.Function):
    """Zero as a function of the wanted ones of a chain's tensors, with the gradients of its result.

    `tensors` come in a tuple, where autograd does not see them: they are kept with their graph, but get no edge.
    """

    @staticmethod
    def forward(ctx: Any, function: Function, keep: bool, wanted: list, tensors: Tensors, saves: int, *own: Tensor):
        ctx.function, ctx.keep, ctx.wanted, ctx.count, ctx.partials = function, keep, wanted, len(tensors), None
        ctx.save_for_backward(*(*tensors,) * saves)
        return own[0].new_zeros(()).expand(torch.broadcast_shapes(*(tensor.shape for tensor in tensors)))

    @staticmethod
    def backward(ctx: Any, g: Tensor):
        function, wanted, tensors = ctx.function, ctx.wanted, ctx.saved_tensors[: ctx.count]
        if torch.is_grad_enabled() or is_batched((g,)):
            gradients = _plain_gradients(function, wanted, g, tensors)
        elif not ctx.keep:
            gradients = _sliced_gradients(function, wanted, g, tensors)
        else:
            if ctx.partials is None:
                # Expanded, a tensor has an element for each of the result's.
                one, expanded = g.new_ones(()).expand(g.shape), [tensor.expand(g.shape) for tensor in tensors]
                ctx.partials = _sliced_gradients(function, wanted, one, expanded)
            shapes = (tensors[k].shape for k in wanted)
            gradients = [p if p is None else (g * p).sum_to_size(s) for p, s in zip(ctx.partials, shapes, strict=True)]
        return None, None, None, None, None, *gradients


def _plain_gradients(function: Function, wanted: list[int], g: Tensor, tensors: Tensors) -> Sequence[Tensor | None]:
    """The gradients in the wanted tensors by plain autograd, with a graph if gradients are on."""
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        # Each is a tensor of its own: the gradient in one that is given twice would count for both.
        own = [tensor.view_as(tensor) for tensor in tensors]
        value = function(*own)
        if not value.requires_grad:
            return [None] * len(wanted)
        return torch.autograd.grad(value, [own[k] for k in wanted], g, create_graph=create_graph, allow_unused=True)


def _sliced_gradients(function: Function, wanted: list[int], g: Tensor, tensors: Tensors) -> Sequence[Tensor | None]:
    """The same without a graph, a slice at a time."""
    shapes, reached = [tensors[k].shape for k in wanted], [False] * len(wanted)
    with torch.inference_mode(False), torch.no_grad(), _saving_as_usual():
        results = [empty_result(s, tensors) if s == g.shape else g.new_zeros(s) for s in shapes]
        for outs_and_parts in _slices(g.shape, *results, g, *tensors):
            outs, (g_part, *parts) = outs_and_parts[: len(wanted)], outs_and_parts[len(wanted) :]
            with torch.enable_grad():
                parts = [part.detach().requires_grad_(k in wanted) for k, part in enumerate(parts)]
                value = function(*parts)
            if not value.requires_grad:
                break
            own = [parts[k] for k in wanted]
            found = torch.autograd.grad(value, own, g_part, allow_unused=True)
            for k, (out, gradient) in enumerate(zip(outs, found, strict=True)):
                if gradient is not None:
                    reached[k] = True
                    # A tensor smaller than the result has a part in several slices.
                    out.copy_(gradient) if shapes[k] == g.shape else out.add_(gradient)
    return [result if full else None for result, full in zip(results, reached, strict=True)]


def _saving_as_usual() -> ExitStack:
    """A context in which tensors are saved without the hooks in force, such as those of an outer checkpoint."""
    stack = ExitStack()
    with suppress(RuntimeError):  # Raised while hooks are disabled.
        # Detached: a tensor that a hook returns as it is would keep its own graph alive.
        stack.enter_context(saved_tensors_hooks(torch.Tensor.detach, lambda tensor: tensor))
    return stack


def _slices(shape: torch.Size, *tensors: Tensor) -> Iterator[list[Tensor]]:
    """Parts of tensors that broadcast to `shape`, each of neighbors in memory."""
    views = [tensor.view((1,) * (len(shape) - tensor.dim()) + tensor.shape) for tensor in tensors]
    order = (0, 2, 3, 1) if any(map(is_channels_last, views)) else tuple(range(len(shape)))
    sizes = [shape[dim] for dim in order]
    # The dimension to cut: indices before it are taken one by one, dimensions behind it whole.
    cut = next(k for k in range(len(sizes)) if math.prod(sizes[k + 1 :]) <= SLICE)
    lengths = [1] * cut + [max(1, SLICE // math.prod(sizes[cut + 1 :]))]
    for starts in itertools.product(*(range(0, size, step) for size, step in zip(sizes, lengths, strict=False))):
        parts = views
        for dim, start, length in zip(order, starts, lengths, strict=False):
            length = min(length, shape[dim] - start)
            parts = [part if part.shape[dim] == 1 else part.narrow(dim, start, length) for part in parts]
        yield parts


# 2 atanh(z) / z as a polynomial in z^2, for z in [0, 1/3]: the Chebyshev interpolant of degree 4, which errs by 4e-9,
# a tenth of float32's rounding. `tests/layers/test_fused.py` derives it again.
ATANH = (2.00000001, 0.66666322, 0.40024595, 0.27965158, 0.28157778)


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)), element by element, to a few roundings; differentiable any number of times.

    On a CPU without the logarithm of 1 + x, which takes some processors ten times as long; elsewhere, and where torch
    traces or transforms the call, it is torch's own.
    """
    if x.device.type != "cpu" or not x.is_floating_point() or is_traced(x):
        return F.softplus(x)
    return _Softplus.apply(x)


class _Softplus(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return _softplus(x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return g * torch.sigmoid(x)


def _softplus(x: Tensor) -> Tensor:
    """max(x, 0) + log(1 + exp(-|x|))."""
    wide = widen(x)
    log = _log_in_float32(wide) if wide.dtype == torch.float32 else _log(wide)
    return log.add_(wide.clamp(min=0)).to(x.dtype)


def _log_in_float32(x: Tensor) -> Tensor:
    """log(1 + t) = 2 atanh(t / (2 + t)) with t = exp(-|x|), by s / (2 - s) with s = t / (1 + t) = sig(-|x|)."""
    z = x.abs().neg_().sigmoid_()
    square = 2 - z
    z.div_(square)
    torch.mul(z, z, out=square)
    series = square * ATANH[-1]
    for coefficient in ATANH[-2:0:-1]:
        series.add_(coefficient).mul_(square)
    return series.add_(ATANH[0]).mul_(z)


def _log(x: Tensor) -> Tensor:
    """log(1 + t) with t = exp(-|x|)."""
    t = x.abs().neg_().exp_()
    # It is t log(u) / (u - 1) with u = 1 + t as rounded, and t where u is 1 (Kahan): `tiny` makes 1 of 0 / 0.
    tiny = torch.finfo(x.dtype).tiny ** 0.5
    u = t + 1
    ratio = u.log().add_(tiny)
    ratio.div_(u.sub_(1).add_(tiny))
    return t.mul_(ratio)
