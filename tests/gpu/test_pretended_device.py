"""The pretended device notices what a GPU would raise, wait for or launch."""

import pytest
import torch
from helpers.pretended_device import CUDA, MixedDevicesError, PretendedDevice, WaitError
from torch import nn
from torch.nn import functional as F


@pytest.fixture
def device():
    with PretendedDevice() as device:
        yield device


def test_results_and_gradients_stay_on_the_device(device):
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.GroupNorm(1, 3)).to("cuda")
    host = torch.randn(2, 2, 5, 5, requires_grad=True)
    x = host.to("cuda")
    y = model(x)
    y.square().sum().backward()
    assert y.device == x.device == model[0].weight.grad.device == CUDA and x.is_cuda and not x.is_cpu
    assert host.grad.device.type == "cpu" and host.grad.abs().max() > 0
    expected = model.to("cpu")(host)
    torch.testing.assert_close(y.cpu(), expected, rtol=0, atol=0)
    for made in (torch.zeros(2, device=CUDA), torch.empty_like(x), x.new_ones(3), x[:, :1], x.double(), x.mT):
        assert made.device == CUDA
    assert torch.zeros(2).device == torch.zeros_like(host).device == x.cpu().device == torch.device("cpu")


def test_mixed_devices_raise(device):
    x = torch.randn(3, 4, device="cuda")
    for run in (
        lambda: x + torch.ones(4),
        lambda: F.linear(x, torch.ones(2, 4)),
        lambda: torch.stack([x[0, 0], torch.tensor(1.0)]),
        lambda: torch.ones(3)[torch.arange(2, device="cuda")],
    ):
        with pytest.raises(MixedDevicesError):
            run()
    with pytest.raises(TypeError):
        x.numpy()
    assert (x * torch.tensor(2.0) + 1).device == CUDA


@pytest.mark.parametrize(
    "run",
    [
        lambda x: x.sum().item(), lambda x: bool(x.any()), lambda x: x.tolist(), lambda x: x.cpu(),
        lambda x: x[x > 0], lambda x: x.nonzero(), lambda x: torch.equal(x, x),
        lambda x: torch.tensor(1.0, device=CUDA), lambda x: torch.ones(2).to("cuda"),
        lambda x: x.masked_select(x > 0), lambda x: x.copy_(torch.ones(4)),
        lambda x: x[torch.tensor([0, 1])],
    ],
)  # fmt: skip
def test_waits_are_seen_and_can_be_forbidden(device, run):
    x = torch.randn(4, device="cuda")
    with device.watch() as seen:
        run(x)
    assert seen.waits.total() == 1
    torch.cuda.set_sync_debug_mode("error")
    with pytest.raises(WaitError):
        run(x)


def test_work_on_the_device_does_not_wait(device):
    x = torch.randn(4, 4, device="cuda")
    with device.watch() as seen:
        y = torch.where(x > 0, x @ x, torch.zeros_like(x))
        y[x > 0] = 0.0
        torch.ones(2).to("cuda", non_blocking=True)
    assert seen.waits.total() == 0
    assert seen.kernels == {"gt": 2, "mm": 1, "zeros_like": 1, "where": 1, "index_put_": 1}


def test_fused_optimizers_keep_the_version(device):
    versions = {}
    for kind in ("foreach", "fused"):
        weight = nn.Parameter(torch.ones(3, device="cuda"))
        weight.grad = torch.ones_like(weight)
        before = weight._version
        torch.optim.SGD([weight], 0.5, **{kind: True}).step()
        versions[kind] = weight._version - before
        assert weight.tolist() == [0.5] * 3
    assert versions["foreach"] > 0 == versions["fused"]


def test_a_graph_replays_on_its_own_tensors(device):
    weight, x = torch.randn(3, 3, device="cuda"), torch.randn(3, device="cuda")
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(graph):
        y = (weight @ x).relu_()[1:] + 1
    x.mul_(-2)
    graph.replay()
    torch.testing.assert_close(y, (weight @ x).relu()[1:] + 1)
    with pytest.raises(WaitError), torch.cuda.graph(graph):
        y.sum().item()


def test_autocast_reaches_the_device(device):
    layer, x = nn.Linear(3, 2).to("cuda"), torch.randn(4, 3, device="cuda")
    with torch.autocast("cuda"):
        assert layer(x).dtype == torch.float16 and torch.is_autocast_enabled("cuda")
    with torch.autocast("cuda", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16 == torch.get_autocast_dtype("cuda")


def test_nothing_stays_behind():
    before = torch.Tensor.to, torch.Tensor.device, torch.zeros, torch.autocast, torch.cuda.is_available
    with PretendedDevice():
        assert torch.Tensor.to is not before[0] and torch.cuda.is_available()
    assert before == (torch.Tensor.to, torch.Tensor.device, torch.zeros, torch.autocast, torch.cuda.is_available)
    assert torch.ones(2).device.type == "cpu"
