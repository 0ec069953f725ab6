"""The section of a GPU, with a CPU in its place and everything small."""

import torch

from crbp_d2.layers.cost_model import Problem
from tools.benchmarks import __main__ as benchmarks
from tools.benchmarks.cuda import NOT_RUN, Work, cuda_section
from tools.benchmarks.training_step import mask_problem, pathfinder_problem
from tools.benchmarks.whole_model import model_of


def test_every_part_of_the_page_is_in_the_section():
    torch.manual_seed(0)
    classes = ("MODEL.ROI_HEADS.NUM_CLASSES", 80, "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 54)
    configs = {"feedforward": "quick/panoptic_R18_baseline_toy.yaml", "20 steps": "quick/panoptic_R18_crbp_toy.yaml"}
    models = {name: model_of(config, *classes) for name, config in configs.items()}
    work = Work(
        device="cpu",
        repeats=1,
        convolutions=[Problem(1, 4, 4, 8, 8, 5)],
        step_problems={
            "mask cell": (mask_problem(1, 8, 4), mask_problem(1, 8, 4)),
            "Pathfinder hGRU": (pathfinder_problem(1, 4, 16), pathfinder_problem(1, 4, 16)),
        },
        memory_steps=(1, 2),
        detections=(2,),
        positives=(2,),
        image=(64, 96),
        inference_models=lambda: models,
        training_models=lambda count: models,
    )
    rows = [line.split("|")[1:-1] for line in cuda_section(work).splitlines() if line.startswith("|")]
    first = [(row[0].strip(), row[1].strip()) for row in rows]
    assert {("mask cell", "plain reference"), ("Pathfinder hGRU", "crbp, from the drive")} <= set(first)
    assert first.count(("2", "feedforward")) == first.count(("2", "20 steps")) == 2
    assert ("5", "1 x 4 x 8 x 8") in first and ("crbp", "0") in first


def test_without_a_gpu_the_page_says_so(monkeypatch):
    written = []
    monkeypatch.setattr(benchmarks, "_write", lambda *parts: written.append(parts))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    benchmarks.cuda()
    assert written == [("On a GPU", "cuda", NOT_RUN)]
