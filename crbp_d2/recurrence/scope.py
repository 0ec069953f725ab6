"""What a cell may know of the solve that its step is one of.

A cell may compute things that depend on its parameters alone, such as the spectrum of a kernel. Within a solve the
parameters do not change, so these are computed once, kept in the solve's cache, and gone with it. And it may prepare
a step for being differentiated once, as in back-propagation through time, or by every term of a series.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

# A context variable, so that every thread (DataParallel's, say) has its own.
_CACHE: ContextVar[dict[Any, Any] | None] = ContextVar("crbp_d2_solve_cache", default=None)
_MANY_PRODUCTS: ContextVar[bool] = ContextVar("crbp_d2_many_products", default=False)


@contextmanager
def solve_scope() -> Iterator[None]:
    """The extent of a solve, as a context or a decorator; one within another shares the outer one's cache."""
    if _CACHE.get() is not None:
        yield
        return
    token = _CACHE.set({})
    try:
        yield
    finally:
        _CACHE.reset(token)


def solve_cache() -> dict[Any, Any] | None:
    """The cache of the solve that is running in this thread; None outside of one."""
    return _CACHE.get()


@contextmanager
def many_products() -> Iterator[None]:
    """The recording of a step whose graph will serve vector-Jacobian products in its state, before the gradient."""
    token = _MANY_PRODUCTS.set(True)
    try:
        yield
    finally:
        _MANY_PRODUCTS.reset(token)


def serves_many_products() -> bool:
    """Whether such a step is being recorded in this thread."""
    return _MANY_PRODUCTS.get()
