"""No update that is not finite, and a message that names what went bad."""

import contextlib
import itertools
import pickle

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.utils.events import EventStorage
from helpers.problems import TanhCell
from torch import nn

from crbp_d2.engine.loop import PartwiseTrainer, allow_void_batches
from crbp_d2.engine.optimizer import clip_gradients
from crbp_d2.recurrence import learning_rule


class Model(nn.Module):
    """Two losses on a recurrence, each multiplied by the input."""

    def __init__(self):
        super().__init__()
        self.recurrence = learning_rule("crbp", TanhCell(), steps=4)

    def forward(self, factors):
        state = self.recurrence(torch.ones(2, 5, dtype=torch.float64)).state[0]
        return {"loss_a": state.sum() * factors[0], "loss_b": (state * 0).sqrt().sum() + state.sum() * factors[1]}


class Scaled(nn.Module):
    """One loss whose gradient by `weight` is the input."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(4))
        self.unused = nn.Parameter(torch.zeros(2))

    def forward(self, batch):
        return {"loss": sum((self.weight * torch.tensor(image)).sum() for image in batch)}


def step(model, optimizer, batch, iteration=17, **settings):
    """Take one step of the trainer; the scalars that it logs."""
    trainer = PartwiseTrainer(model, itertools.repeat(batch), optimizer, **settings)
    trainer.iter = iteration
    with EventStorage(iteration) as storage:
        trainer.run_step()
    return {name: value for name, (value, _) in storage.latest().items()}


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_bad_loss_is_named_before_an_update(bad):
    model = Model()
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(FloatingPointError, match="^loss_a = (nan|-?inf) at iteration 17") as raised:
        step(model, torch.optim.SGD(model.parameters(), lr=0.1), [bad, 1.0])
    assert "recurrence: 4 steps" in str(raised.value)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_a_bad_gradient_of_finite_losses():
    model = Model()
    before = [p.detach().clone() for p in model.parameters()]
    # The square root of zero has no finite derivative.
    with pytest.raises(FloatingPointError, match="gradient not finite at iteration 17") as raised:
        step(model, torch.optim.SGD(model.parameters(), lr=0.1), [1.0, 1.0])
    assert "first recurrence" in str(raised.value)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def clip(optimizer, kind, value=0.5, norm_type=2.0):
    settings = get_cfg().SOLVER.CLIP_GRADIENTS
    settings.merge_from_list(["CLIP_TYPE", kind, "CLIP_VALUE", value, "NORM_TYPE", norm_type])
    clip_gradients(optimizer, settings)


def weight_after(gradient, optimizer_type=torch.optim.SGD, clipping=None):
    """The weight after a step of rate 1 with this gradient."""
    model = Scaled()
    optimizer = optimizer_type(model.parameters(), lr=1.0)
    if clipping:
        clip(optimizer, clipping)
    try:
        step(model, optimizer, [gradient], 3, clips_values=clipping == "value")
    finally:
        assert model.weight.isfinite().all()
    return model.weight.tolist()


@pytest.mark.parametrize("clipping", [None, "value", "norm"])
@pytest.mark.parametrize("bad", [float("inf"), float("-inf"), float("nan")])
def test_gradients_are_checked_before_they_are_clipped(clipping, bad):
    model = Scaled()
    # A loss of zero times infinity is NaN; the hook makes only the gradient bad.
    model.weight.register_hook(lambda g: g * torch.tensor([1.0, bad, 1.0, 1.0]))
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    if clipping:
        clip(optimizer, clipping)
    with pytest.raises(FloatingPointError, match="not finite at iteration 3") as raised:
        step(model, optimizer, [[1.0, 1.0, 0.0, 2.0]], 3, clips_values=clipping == "value")
    assert "first weight" in str(raised.value) and model.weight.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("optimizer_type,clipping", [(torch.optim.SGD, None), (torch.optim.Adam, "norm")])
def test_a_norm_that_overflows_is_called_that(optimizer_type, clipping):
    with pytest.raises(FloatingPointError, match="overflows") as raised:
        weight_after([3e30, 1.0, 1.0, 1.0], optimizer_type, clipping)
    message = str(raised.value)
    assert "first weight" in message and "3e+30" in message and "not finite" not in message


def test_large_finite_gradients_are_clipped_by_value():
    assert weight_after([3e30, -3e30, 0.25, 0.0], clipping="value") == [-0.5, 0.5, -0.25, 0]


@pytest.mark.parametrize("kind,norms", [("norm", (7, 2)), ("full_model", (9, 9))])
def test_clipping_by_the_norm_of_its_type(kind, norms):
    parameters = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))]
    parameters[0].grad, parameters[1].grad = torch.tensor([3.0, -4.0]), torch.tensor([2.0])
    optimizer = torch.optim.SGD(parameters, lr=1.0)
    clip(optimizer, kind, norm_type=1.0)
    optimizer.step()
    assert parameters[0].tolist() == pytest.approx([-1.5 / norms[0], 2 / norms[0]])
    assert parameters[1].item() == pytest.approx(-1 / norms[1])


def fused_sgd(parameters, lr):
    return torch.optim.SGD(parameters, lr=lr, fused=True)


@pytest.mark.parametrize("optimizer_type", [torch.optim.SGD, fused_sgd])
def test_the_scaler_skips_an_overflow(optimizer_type):
    model = Scaled()
    optimizer = optimizer_type(model.parameters(), lr=1.0)
    trainer = PartwiseTrainer(model, itertools.repeat([[1e35, 0.0, 0.0, 1.0]]), optimizer, dtype=torch.float16)
    scales = []
    with EventStorage():
        for trainer.iter in range(2):
            trainer.run_step()
            scales.append(trainer.grad_scaler.get_scale())
    assert scales == [2.0**15, 2.0**14] and model.weight.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("optimizer_type", [torch.optim.SGD, fused_sgd])
def test_scaled_gradients_are_clipped_unscaled(optimizer_type):
    model = Scaled()
    optimizer = optimizer_type(model.parameters(), lr=1.0)
    clip(optimizer, "full_model", 2.5)
    step(model, optimizer, [[3.0, 4.0, 0.0, 0.0]], dtype=torch.float16)
    assert model.weight.tolist() == pytest.approx([-1.5, -2.0, 0, 0], rel=1e-3)


class Means(nn.Module):
    """A mean and a sum over the images of a batch; records its batches, and those within `no_sync`."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.batches = []
        self.unsynced = []

    @contextlib.contextmanager
    def no_sync(self):
        first = len(self.batches)
        yield
        self.unsynced += self.batches[first:]

    def forward(self, batch):
        self.batches.append(batch)
        images = self.weight * torch.tensor(batch)
        return {"loss": images.mean(), "loss_lipschitz": images.sum()}


@pytest.mark.parametrize("parts,expected", [(1, [5]), (2, [3, 2]), (3, [2, 2, 1]), (9, [1] * 5)])
def test_parts_are_contiguous_and_sums_stay_sums(parts, expected):
    model = Means()
    batch = [1.0, 2.0, 3.0, 4.0, 10.0]
    logged = step(model, torch.optim.SGD(model.parameters(), lr=0.1), batch, parts=parts, sums=("loss_lipschitz",))
    assert [len(part) for part in model.batches] == expected and sum(model.batches, []) == batch
    assert model.unsynced == model.batches[:-1]
    assert logged["loss"] == pytest.approx(4) and logged["loss_lipschitz"] == pytest.approx(20)
    # The gradient is their sum.
    assert model.weight.item() == pytest.approx(1 - 0.1 * 24)
    assert model.weight.item() == pytest.approx(1 - 0.1 * 24)


def test_one_synchronization_an_update():
    model = Means()
    unsynchronized = []

    class Recorder:
        def __enter__(self):
            unsynchronized.append(len(model.batches))

        def __exit__(self, *_):
            pass

    model.no_sync = Recorder
    step(model, torch.optim.SGD(model.parameters(), lr=0.1), [1.0] * 6, parts=3)
    assert unsynchronized == [0, 1] and len(model.batches) == 3


class SemanticHead(nn.Module):
    ignore_value = 255

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, 1))

    def forward(self, features, targets=None):
        logits = self.weight.view(1, 3, 1, 1) * features["p2"]
        loss = nn.functional.cross_entropy(logits, targets, ignore_index=self.ignore_value)
        return None, {"loss_sem_seg": loss}


def test_a_void_batch_has_zero_loss_and_gradients():
    model = nn.Module()
    model.sem_seg_head = head = SemanticHead()
    allow_void_batches(model)
    head = pickle.loads(pickle.dumps(head))
    features = {"p2": torch.arange(8.0).view(2, 1, 2, 2).requires_grad_()}
    loss = head(features, torch.full((2, 2, 2), 255))[1]["loss_sem_seg"]
    loss.backward()
    assert loss.item() == 0 and not head.weight.grad.any() and not features["p2"].grad.any()
    targets = torch.full((2, 2, 2), 255)
    targets[0, 0, 1] = 2
    expected = SemanticHead()(features, targets)[1]["loss_sem_seg"]
    assert torch.equal(head(features, targets)[1]["loss_sem_seg"], expected)
