"""Chains of element-wise operators: evaluated and differentiated a slice at a time, without their links in memory.

On a CPU such a chain over large tensors waits for memory at every link; slices of it stay in the processor's cache. Its
graph holds the arguments alone, and evaluates the chain again where it is differentiated. Where many products will be
asked of it: since an element of the result depends on one element of each argument, the derivative in an argument is a
tensor of partial derivatives; computed once, it is all that the vector-Jacobian products of a series multiply by. What
stays in the cache as a whole gains nothing by that, and is left to autograd.
"""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from crbp_d2.utils.tracing import is_batched, is_traced

from .bilinear import Join
from .cache import serves_many_products
from .tensors import is_channels_last, layout_of

Function = Callable[..., Tensor]
Tensors = tuple[Tensor, ...]

# Elements up to which a result is left to plain operators, 2 MiB in float32, and those of a slice of a larger one.
WHOLE, SLICE = 2**19, 2**17
PRECISIONS = (torch.float32, torch.float64)


def elementwise(function: Function, changing: Tensors, fixed: Tensors = ()) -> Tensor:
    """function(*changing, *fixed), differentiable any number of times.

    For small tensors, away from CPUs, in half precision, and where torch traces or transforms the call it is just that.

    Args:
        function: of plain differentiable operators; each element of its result depends on one element of each
            argument, after broadcasting. It holds no other tensor that a gradient is wanted of.
        changing: what depends on the state of a recurrence, so that every term of a series asks for its gradients.
        fixed: what does not, such as drives and parameters: their gradients are asked for once. The two are told
            apart where a step is recorded for many products (see recurrence/scope.py).
    """
    tensors = changing + fixed
    if not _can_be_sliced(tensors):
        return function(*tensors)
    shape = torch.broadcast_shapes(*(tensor.shape for tensor in tensors))
    if math.prod(shape) <= WHOLE:
        return function(*tensors)
    chain = _Chain(function, shape)
    (result,) = chain.sliced(lambda *parts: (function(*parts),), [chain.shape], tensors)
    if not torch.is_grad_enabled():
        return result
    # Autograd leaves out a node that leads nowhere, so that a series does not pay for the gradients of the rest.
    first = len(changing) if serves_many_products() else 0
    for keep, of in ((True, range(first)), (False, range(first, len(tensors)))):
        wanted = [k for k in of if tensors[k].requires_grad]
        if wanted:
            result = Join.apply(result, _Group.apply(chain, keep, wanted, tensors, *(tensors[k] for k in wanted)))
    return result


class _Group(torch.autograd.Function):
    """Zero as a function of some of a chain's tensors, with the gradients of its result.

    `tensors` come in a tuple, where autograd does not see them: they are kept with their graph, but get no edge.
    """

    @staticmethod
    def forward(ctx, chain: "_Chain", keep: bool, wanted: list[int], tensors: Tensors, *own: Tensor) -> Tensor:
        ctx.chain, ctx.keep, ctx.wanted = chain, keep, wanted
        ctx.save_for_backward(*tensors)
        return own[0].new_zeros(()).expand(chain.shape)

    @staticmethod
    def backward(ctx, g: Tensor):
        chain, wanted, tensors = ctx.chain, ctx.wanted, ctx.saved_tensors
        if not torch.is_grad_enabled():
            gradients = chain.gradients(wanted, g, tensors, ctx.keep)
        elif is_batched((g,)):
            gradients = chain.derivatives(wanted, g, _apart(tensors), create_graph=True)
        else:
            gradients = _Gradients.apply(chain, ctx.keep, wanted, g, *tensors)
        return None, None, None, None, *gradients


class _Gradients(torch.autograd.Function):
    """The gradients of a chain in some of its tensors, as a function of the result's and of all tensors."""

    @staticmethod
    def forward(ctx, chain: "_Chain", keep: bool, wanted: list[int], g: Tensor, *tensors: Tensor) -> Tensors:
        ctx.chain, ctx.wanted = chain, wanted
        ctx.save_for_backward(g, *tensors)
        return tuple(chain.gradients(wanted, g, tensors, keep))

    @staticmethod
    def backward(ctx, *gs: Tensor):
        count, tensors = len(gs), ctx.saved_tensors
        asked = [k for k, needed in enumerate(ctx.needs_input_grad[3:]) if needed]

        def gradients(*parts: Tensor, again: bool = False) -> Tensors:
            own = parts[count:]
            found = ctx.chain.derivatives(ctx.wanted, own[0], own[1:], create_graph=True)
            return torch.autograd.grad(
                found, [own[k] for k in asked], parts[:count], create_graph=again, materialize_grads=True
            )

        inputs = (*gs, *tensors)
        if torch.is_grad_enabled():
            found = gradients(*_apart(inputs), again=True)
        else:
            found = ctx.chain.sliced(gradients, [tensors[k].shape for k in asked], inputs, differentiable=True)
        result: list[Tensor | None] = [None] * (3 + len(tensors))
        for k, gradient in zip(asked, found, strict=True):
            result[3 + k] = gradient
        return tuple(result)


class _Chain:
    """A function of tensors that broadcast to `shape`."""

    def __init__(self, function: Function, shape: torch.Size):
        self.shape = shape
        self._function = function
        self._partials: Tensors | None = None

    def gradients(self, wanted: list[int], g: Tensor, tensors: Tensors, keep: bool) -> Sequence[Tensor]:
        """Those in the wanted tensors, given the result's gradient g, without a graph.

        Args:
            keep: whether the partial derivatives, the same for every g, are kept for the next.
        """

        def derivatives(g: Tensor, *parts: Tensor) -> Tensors:
            return self.derivatives(wanted, g, parts)

        if not keep and not is_batched((g,)):
            shapes = [tensors[k].shape for k in wanted]
            return self.sliced(derivatives, shapes, (g, *tensors), differentiable=True)
        partials = self._partials
        if partials is None:
            one = tensors[0].new_ones(()).expand(self.shape)
            # Expanded, a tensor has an element for each of the result's.
            expanded = tuple(tensor.expand(self.shape) for tensor in tensors)
            shapes = [self.shape for _ in wanted]
            partials = self.sliced(derivatives, shapes, (one, *expanded), differentiable=True)
            if keep:
                self._partials = partials
        return [_summed(g * value, tensors[k].shape) for k, value in zip(wanted, partials, strict=True)]

    def derivatives(self, wanted: list[int], g: Tensor, tensors: Tensors, create_graph: bool = False) -> Tensors:
        """The gradients by autograd. The tensors require one."""
        value = self._function(*tensors)
        return torch.autograd.grad(value, [tensors[k] for k in wanted], g, create_graph=create_graph)

    def sliced(
        self,
        function: Callable[..., Tensors],
        shapes: Sequence[torch.Size],
        tensors: Tensors,
        differentiable: bool = False,
    ) -> Tensors:
        """What a function with several results gives for slices of tensors, put together without a graph.

        Args:
            shapes: of the results. What every slice has a part in, because it is smaller than `shape`, is added up.
            tensors: that broadcast to `shape`.
            differentiable: whether the function differentiates with respect to its arguments.
        """

        def call(parts: Sequence[Tensor]) -> Tensors:
            if not differentiable:
                return function(*parts)
            # What this small graph saves is not what a checkpoint around the call, or another hook, is there for.
            with torch.enable_grad(), saved_tensors_hooks(_itself, _itself):
                return function(*(part.detach().requires_grad_() for part in parts))

        with torch.no_grad():
            whole = [shape == self.shape for shape in shapes]
            results = tuple(
                _room(self.shape, tensors) if full else tensors[0].new_zeros(shape)
                for shape, full in zip(shapes, whole, strict=True)
            )
            for parts in _slices(self.shape, *results, *tensors):
                outs, parts = parts[: len(results)], parts[len(results) :]
                for out, value, full in zip(outs, call(parts), whole, strict=True):
                    out.copy_(value) if full else out.add_(value)
            return results


def _can_be_sliced(tensors: Sequence[Tensor]) -> bool:
    dtype = tensors[0].dtype
    plain = dtype in PRECISIONS and all(
        tensor.device.type == "cpu" and tensor.dtype == dtype and tensor.numel() and not is_traced(tensor)
        for tensor in tensors
    )
    return plain and not is_batched(tensors)


def _itself(tensor: Tensor) -> Tensor:
    return tensor


def _apart(tensors: Tensors) -> Tensors:
    """The same with their graphs, each a tensor of its own: a gradient in one is then not that in its double, too."""
    return tuple(tensor.view_as(tensor) for tensor in tensors)


def _summed(x: Tensor, shape: torch.Size) -> Tensor:
    """The sum of x over what was broadcast from a shape."""
    if x.shape == shape:
        return x
    added = x.dim() - len(shape)
    dims = [d for d in range(x.dim()) if d < added or shape[d - added] != x.shape[d]]
    return x.sum(dims, keepdim=True).reshape(shape)


def _room(shape: torch.Size, tensors: Sequence[Tensor]) -> Tensor:
    """Room for a result, in the layout of the first of the tensors that has its shape."""
    like = next((tensor for tensor in tensors if tensor.shape == shape), tensors[0])
    return torch.empty(shape, dtype=like.dtype, memory_format=layout_of(like))


def _slices(shape: torch.Size, *tensors: Tensor) -> Iterator[list[Tensor]]:
    """Parts of all tensors that belong together; those of the first are neighbours in memory.

    Args:
        shape: that the tensors broadcast to; not the first one's where parts of a parameter are to be added to.
    """
    views = [tensor.view((1,) * (len(shape) - tensor.dim()) + tensor.shape) for tensor in tensors]
    if any(is_channels_last(view) for view in views):
        views = [view.permute(0, 2, 3, 1) for view in views]
        shape = torch.Size((shape[0], *shape[2:], shape[1]))
    # The dimension to cut: those before it are taken one by one, those behind it whole.
    cut = next(d for d in range(len(shape)) if math.prod(shape[d + 1 :]) <= SLICE)
    length = max(1, SLICE // math.prod(shape[cut + 1 :]))
    return _cut(views, shape, cut, length)


def _cut(views: Sequence[Tensor], shape: torch.Size, cut: int, length: int, dim: int = 0) -> Iterator[list[Tensor]]:
    step = length if dim == cut else 1
    for start in range(0, shape[dim], step):
        # What is broadcast along a dimension stays whole.
        parts = [v if v.shape[dim] == 1 else v.narrow(dim, start, min(step, shape[dim] - start)) for v in views]
        if dim == cut:
            yield parts
        else:
            yield from _cut(parts, shape, cut, length, dim + 1)
