"""The measurements of a GPU on the pretended device, with small sizes."""

import copy
import time

import pytest
import torch
from helpers.pretended_device import PretendedDevice

from crbp_d2.layers.cost_model import Problem
from tools.benchmarks import __main__ as benchmarks
from tools.benchmarks import cuda
from tools.benchmarks.training_step import mask_problem, pathfinder_problem
from tools.benchmarks.whole_model import model_of

MODELS = {"feedforward": "quick/panoptic_R18_baseline_toy.yaml", "20 steps": "quick/panoptic_R18_crbp_toy.yaml"}
CLASSES = ("MODEL.ROI_HEADS.NUM_CLASSES", 80, "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 54)


@pytest.fixture
def work():
    """Small work, whose kernels and waits the pretended device counts."""

    def models(*_):
        return {name: model_of(config, *CLASSES) for name, config in MODELS.items()}

    def counted(kind):
        def count(run):
            with device.watch() as seen:
                run()
            return getattr(seen, kind).total()

        return count

    with PretendedDevice() as device:
        yield cuda.Work(
            repeats=1,
            convolutions=[Problem(1, 4, 4, 8, 8, 5)],
            problems=lambda: (mask_problem(1, 8, 4), pathfinder_problem(1, 4, 16)),
            memory_steps=(1, 2),
            detections=(2,),
            positives=(2,),
            image=(64, 96),
            inference_models=models,
            training_models=models,
            counters=(counted("kernels"), counted("waits")),
            compile=copy.deepcopy,
        )


# A column of a table, and its values.
EXPECTED = {
    "steps": (2, {"plain loop", "crbp", "crbp, accelerated", "deq", "torchdeq"}),
    "graphs": (1, {"eager", "compiled", "graph"}),
    "convolutions": (4, {"float32", "TF32"}),
    "exits": (1, set(MODELS)),
    "training": (1, set(MODELS)),
    "memory": (0, {"bptt", "rbp", "crbp"}),
}


@pytest.mark.filterwarnings("ignore::crbp_d2.recurrence.UnconvergedWarning")
@pytest.mark.parametrize("name", cuda.PARTS)
def test_every_part_runs(name, work, monkeypatch):
    monkeypatch.setattr("tools.benchmarks.against_torchdeq.MAX_STEPS", 3)
    kinds = ("float32", "float16") if name == "steps" else ("float32", "TF32")
    monkeypatch.setattr(cuda, "PRECISIONS", {kind: cuda.PRECISIONS[kind] for kind in kinds})
    column, values = EXPECTED[name]
    headers, rows = cuda.PARTS[name](work)
    assert {row[column] for row in rows} == values and {len(row) for row in rows} == {len(headers)}
    if name == "steps":
        kernels = {tuple(row[:3]): int(row[4]) for row in rows}
        assert kernels["mask cell", "float32", "crbp"] > 1000 and kernels["mask cell", "float16", "torchdeq"] > 0


def test_parts_are_written_until_the_time_is_over(monkeypatch):
    now, written = [0.0], []
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def part(work):
        now[0] += 50
        return work

    monkeypatch.setattr(cuda, "PARTS", dict.fromkeys("abcd", part))
    assert cuda.measure_parts("table", 2, lambda *given: written.append(given)) == ["d"]
    assert written == [("a", "table"), ("b", "table"), ("c", "table")]


def test_the_command_needs_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="needs a GPU"):
        benchmarks.main(["cuda", "--minutes", "12"])
