"""Gradients at a fixed point by dense Jacobians, without the package."""

import torch

from .problems import dense_jacobian, flat, iterate, loss_of, push


def fixed_point(cell, drive):
    """A fixed point, and of a loss there dL/dh, J and I."""
    state = iterate(cell, drive, 1000)
    leaf = tuple(part.requires_grad_() for part in state)
    g = flat(torch.autograd.grad(loss_of(leaf), leaf))
    jacobian = dense_jacobian(cell, drive, state)
    return state, g, jacobian, torch.eye(jacobian.shape[-1], dtype=jacobian.dtype)


def damped_sum(cell, drive, terms, damping):
    """u dF/dw with u = damping * sum over i < terms of g ((1 - damping) I + damping J)^i."""
    state, g, jacobian, identity = fixed_point(cell, drive)
    mixed = (1 - damping) * identity + damping * jacobian
    u = sum(torch.einsum("ni,nij->nj", g, torch.linalg.matrix_power(mixed, i)) for i in range(terms))
    return push(cell, drive, state, damping * u)


def at_fixed_point(cell, drive):
    """u dF/dw with u (I - J) = dL/dh solved densely."""
    state, g, jacobian, identity = fixed_point(cell, drive)
    return push(cell, drive, state, torch.linalg.solve((identity - jacobian).mT, g[..., None])[..., 0])
