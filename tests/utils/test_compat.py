"""Private names of torch, each against what it is used for."""

import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad, grad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.checkpoint import checkpoint

from crbp_d2.utils import compat


def seen(found, name, *args):
    found.append(getattr(compat, name)(*args))


def test_eager_call_skips_what_was_compiled():
    module, calls = nn.Linear(2, 2), []
    module.register_forward_hook(lambda *_: calls.append(torch.compiler.is_compiling()))
    x, plain = torch.ones(1, 2), module(torch.ones(1, 2))
    wrapped = torch.compile(module, backend="eager")
    assert torch.equal(compat.eager_call(wrapped)(x), plain)
    module.compile(backend="eager")
    assert torch.equal(compat.eager_call(module)(x), plain)
    assert calls == [False] * 3


def test_checkpoint_is_seen():
    found, x = [compat.checkpoint_saves_tensors()], torch.ones(2, requires_grad=True)
    checkpoint(lambda x: seen(found, "checkpoint_saves_tensors") or x * 2, x, use_reentrant=False)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: x, lambda x: x):
        seen(found, "checkpoint_saves_tensors")
    assert found == [False, True, False]


def test_transforms_and_forward_mode_are_seen():
    found, x = [compat.is_transformed(), compat.is_forward_mode()], torch.ones(2)
    torch.vmap(lambda x: seen(found, "is_transformed") or x)(x)
    with forward_ad.dual_level():
        seen(found, "is_forward_mode")
    assert found == [False, False, True, True]


def test_vectorized_gradients_are_batched():
    found, x = [compat.is_legacy_batched(torch.ones(2))], torch.ones(2, requires_grad=True)
    y = x * 2
    y.register_hook(lambda g: seen(found, "is_legacy_batched", g))
    grad(y, x, torch.eye(2), is_grads_batched=True)
    assert found == [False, True]


def test_recording_and_fake_tensors_are_seen():
    found = [compat.is_proxied(), compat.is_fake(torch.ones(2))]
    make_fx(lambda x: seen(found, "is_proxied") or x + 1)(torch.ones(2))
    with FakeTensorMode() as mode:
        seen(found, "is_fake", mode.from_tensor(torch.ones(2)))
    assert found == [False, False, True, True]
