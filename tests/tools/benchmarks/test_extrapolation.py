"""From measured parts to trainings on GPUs, against numbers worked out by hand."""

import pytest
import torch
from torch import nn

from crbp_d2.layers.convolution import HorizontalConv2d
from tools.benchmarks.extrapolation import (
    COCO,
    PUBLISHED,
    Assumptions,
    Step,
    Training,
    extrapolate,
    extrapolation_section,
    measure_steps,
    stimuli,
    trainings,
)
from tools.benchmarks.step_profile import count_operations
from tools.benchmarks.whole_model import model_of

# 4 GPUs of 10^12 operations/s, a quarter of them reached; 5 cores that load.
GIVEN = Assumptions(gpus=4, peak=1e12, fraction=0.25, bandwidth=1e9, overlap=0.5, cores=5)
RATES = {"panoptic": 10.0, "pathfinder": 100.0}


def training(**changes):
    given = {"operations": 5e10, "ratio": 2.0, "parameters": 10**8, "batch": 8, "iterations": 100, "images": 80}
    return Training("some", **{**given, "rate": 2.0, **changes})


def test_an_iteration_by_parts():
    found = extrapolate(training(), GIVEN)
    # 2 images a GPU, each 10^11 operations at 2.5 * 10^11 a second.
    assert found.compute == pytest.approx(0.8)
    # 4 * 10^8 bytes, 6/4 times, half of it hidden, at 10^9 a second.
    assert found.gradients == pytest.approx(0.3)
    # 8 images at 10 a second; at 1.1 s an iteration 8 / 2.2 cores would do.
    assert found.loading == pytest.approx(0.8)
    assert found.cores == pytest.approx(8 / 2.2) and found.iteration == pytest.approx(1.1)


def test_loading_is_what_an_iteration_waits_for_where_it_is_slower():
    found = extrapolate(training(rate=1.0), GIVEN)
    assert found.loading == pytest.approx(1.6) and found.iteration == pytest.approx(1.6)


def test_one_gpu_sends_nothing():
    found = extrapolate(training(), Assumptions(gpus=1, peak=1e12, fraction=0.25, bandwidth=1e9))
    assert found.gradients == 0 and found.compute == pytest.approx(3.2)


STEPS = {
    "feedforward": Step(operations=1e12, rounds=(10.0, 12.0, 8.0), direct=11.0, parameters=1000),
    "identical": Step(operations=3e12, rounds=(15.0, 12.0, 16.0), direct=20.0, parameters=900),
    "hGRU": Step(operations=5e11, rounds=(1.0, 0.9, 1.1), direct=4.0, parameters=50),
}


def test_by_operations_and_by_ratio():
    found = {t.name: (t.operations, t.ratio, t.parameters, t.batch, t.iterations) for t in trainings(STEPS, RATES)}
    assert found == {
        "panoptic, feedforward": (1e12, 1, 1000, 16, 90000),
        "panoptic, identical": (3e12, 1, 900, 16, 90000),
        "panoptic, identical, by its ratio": (1e12, 1.5, 900, 16, 90000),
        "Pathfinder, hGRU, direct": (5e11, 1, 50, 128, 28125),
        "Pathfinder, hGRU, by its ratio": (5e11, 0.25, 50, 128, 28125),
    }


def test_the_section_follows_from_the_parts():
    text = extrapolation_section(STEPS, RATES, GIVEN)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    assert ["bandwidth", "1e+09", "bytes/s"] in [row[:3] for row in rows]
    # 4 images a GPU, 10^12 operations each; 16 images at 50 a second; 90,000 iterations of 16 s.
    epochs = 90000 * 16 / COCO
    first = next(row for row in rows if row[0] == "panoptic, feedforward")
    assert first[1:6] == ["16.000", "0.000", "0.320", "16.000", "0.1"]
    assert first[6:] == [f"{400 / epochs:.2f}", f"{epochs:.1f}", "400.0"]
    last = next(row for row in rows if row[0] == "Pathfinder, hGRU, by its ratio")
    # 32 stimuli a GPU, a quarter of 5 * 10^11 operations; 20 epochs.
    assert last[1] == "16.000" and last[7:] == ["20.0", "125.0"]
    assert f"{16 / PUBLISHED:.2f} times" in text and f"identical {1.5 * PUBLISHED:.2f} s" in text


def test_operations_are_two_a_multiply_add_forward_and_backward():
    convolution = HorizontalConv2d(2, 2, 3)
    x = torch.zeros(1, 2, 5, 5, requires_grad=True)
    forward = 2 * 2 * 2 * 9 * 25
    assert count_operations(lambda: convolution(x)) == forward
    assert count_operations(lambda: convolution(x).sum().backward()) == 3 * forward


def test_a_step_is_counted_with_direct_convolutions_and_timed_as_it_is_trained(monkeypatch):
    methods = []
    monkeypatch.setattr("tools.benchmarks.extrapolation.set_convolution", lambda model, method: methods.append(method))

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.frozen = nn.Parameter(torch.ones(3, 3)), nn.Parameter(torch.ones(7), requires_grad=False)

        def forward(self, inputs):
            methods.append("run")
            return {"loss": (self.weight @ torch.ones(3, 4)).sum()}

    works = {"a": (Model(), [{}, {}]), "b": (Model(), [{}])}
    found = measure_steps(works, rounds=2, clock=map(float, (0, 8, 10, 11, *range(20, 28), 30)).__next__)
    assert methods == ["direct", "run", "auto"] * 2 + ["run"] * 4
    # A product forward and one for the weight's gradient, for each call.
    assert found["a"] == Step(operations=2 * 36 * 2 / 2, rounds=[0.5, 0.5], direct=4, parameters=9)
    assert found["b"] == Step(operations=2 * 36 * 2, rounds=[1, 1], direct=1, parameters=9)


def test_a_ratio_is_the_median_of_those_of_a_round():
    assert STEPS["identical"].ratio(STEPS["feedforward"]) == 1.5
    assert Step(1, (3, 4, 10), 1, 1).ratio(Step(1, (1, 2, 10), 1, 1)) == 2


def test_the_pathfinder_network_takes_the_stimuli():
    model = model_of("pathfinder/PF6s_hgru_crbp.yaml")
    found = measure_steps({"hGRU": (model, stimuli(2, 16))}, rounds=1)["hGRU"]
    assert found.operations > 0 and found.parameters == sum(p.numel() for p in model.parameters())
