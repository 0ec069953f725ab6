"""Every rule under DistributedDataParallel: two processes, one of them with an empty batch in the second step."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from helpers import forked
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from crbp_d2.cells import GalaHGRUCell
from crbp_d2.recurrence import RULES, learning_rule

WORLD = 2


class Model(nn.Module):
    def __init__(self, rule):
        super().__init__()
        torch.manual_seed(0)
        self.recurrence = learning_rule(rule, GalaHGRUCell(8), steps=4, bound=0.0)

    def forward(self, drive):
        output = self.recurrence(drive)
        return output.state[0].square().sum() + output.penalty


def batch(rank, step):
    generator = torch.Generator().manual_seed(10 * step + rank)
    samples = 0 if (rank, step) == (1, 1) else 2
    return torch.randn(samples, 8, 6, 6, generator=generator)


def gradients(model, batch):
    model.zero_grad()
    model(batch).backward()
    return [p.grad.clone() for p in model.parameters()]


def worker(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/init", rank=rank, world_size=WORLD)
    results = {}
    for rule in RULES:
        model = DistributedDataParallel(Model(rule))
        results[rule] = [gradients(model, batch(rank, step)) for step in range(2)]
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def distributed(tmp_path_factory):
    """Per rank, per rule, per step: the gradients."""
    folder = tmp_path_factory.mktemp("distributed")
    forked.serve()
    mp.start_processes(worker, (str(folder),), nprocs=WORLD, start_method="forkserver")
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(WORLD)]


@pytest.mark.parametrize("rule", RULES)
def test_gradients_are_the_mean_over_processes(rule, distributed):
    models = [Model(rule) for _ in range(WORLD)]
    for step in range(2):
        single = [gradients(model, batch(rank, step)) for rank, model in enumerate(models)]
        both = [results[rule][step] for results in distributed]
        for ours, other, *parts in zip(*both, *single, strict=True):
            assert torch.equal(ours, other)
            torch.testing.assert_close(ours, sum(parts) / WORLD, rtol=1e-4, atol=1e-5)
            assert step == 1 or parts[0].any() and parts[1].any()
