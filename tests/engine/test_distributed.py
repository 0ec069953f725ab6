"""Several processes on a CPU compute what one does."""

import json
import os
import subprocess
import sys

import pytest
import torch
from helpers import forked
from helpers.paths import ROOT
from helpers.small_run import write_set_with_an_empty_image

from tools.soak.small_runs import RUNS

SCRIPT = ROOT / "tests/helpers/small_run.py"
# No batch norm: its statistics are those of a process.
CONTOUR = (
    "MODEL.RECURRENCE.RULE", "crbp", "MODEL.RECURRENCE.CELL.NORM", "GN", "MODEL.RECURRENCE.READOUT_NORM", "LN",
    "SOLVER.MAX_ITER", 4,
)  # fmt: skip
TWO = ("--num-processes", 2)
PYTHON = (sys.executable, "-W", "ignore")
TORCHRUN = (*PYTHON, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("datasets")
    write_set_with_an_empty_image(folder)
    return folder


@pytest.fixture
def run(root, tmp_path):
    """run(name, place, *options, command, flags): a small run, by the command or forked; its folder."""

    def start(name, place, *options, command=(), flags=()):
        arguments = [*RUNS[name].arguments(tmp_path / place, *flags), *map(str, options)]
        environment = {"PYTHONPATH": f"{ROOT}:{ROOT}/tests", "OMP_NUM_THREADS": "1", "SMALL_SETS": str(root)}
        if command:
            command = [*command, str(SCRIPT), *arguments]
            done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        else:
            log = tmp_path / f"{place}.log"
            assert forked.run(SCRIPT, arguments, log, environment=environment) == 0, log.read_text()[-6000:]
        return tmp_path / place

    return start


def weights(folder, rank=0, when="rank"):
    return torch.load(folder / f"{when}_{rank}.pt", weights_only=True)


def results(folder, name):
    return json.loads((folder / "inference" / name / "results.json").read_text())


def assert_same(folder):
    """All processes ended with the same parameters, bit for bit."""
    first, second = weights(folder), weights(folder, 1)
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def assert_close(one, two):
    """The parameters moved alike, relative to how far they moved: rounding may take a ReLU to its other side."""
    start, one, two = weights(one, when="start"), weights(one), weights(two)
    moved = {name: (value - start[name]).norm().item() for name, value in one.items()}
    apart = {name: (two[name] - value).norm().item() for name, value in one.items()}
    # What hardly moves, such as a bias before a norm, differs by rounding only.
    smallest = 1e-3 * max(moved.values())
    found = {name: apart[name] / max(moved[name], smallest) for name in one}
    assert max(found.values()) < 1e-2, found


def test_pathfinder(run):
    """And evaluation, in which the second process has no batch."""
    one = run("every_step", "one", *CONTOUR, "DATALOADER.NUM_WORKERS", 0)
    two = run("every_step", "two", *CONTOUR, "DATALOADER.NUM_WORKERS", 1, command=PYTHON, flags=TWO)
    assert_same(two)
    assert_close(one, two)
    # Of equal logits up to rounding.
    scores = [results(folder, "pathfinder_soak_val")["pathfinder"] for folder in (one, two)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)


def test_torchrun(run):
    one = run("stream", "one", *CONTOUR, "DATASETS.TEST", ())
    two = run("stream", "two", *CONTOUR, "DATASETS.TEST", (), command=TORCHRUN)
    assert_same(two)
    assert_close(one, two)


@pytest.mark.parametrize("name", ["stream", "panoptic"])
def test_fresh_processes_agree_bit_for_bit(run, name):
    """Each has its own order of sets of strings."""
    options = ("SOLVER.MAX_ITER", 3, "DATASETS.TEST", (), "DATALOADER.NUM_WORKERS", 0)
    first, second = (weights(run(name, place, *options, command=PYTHON)) for place in ("one", "two"))
    assert first.keys() == second.keys() and all(torch.equal(value, second[key]) for key, value in first.items())


@pytest.mark.parametrize("data", ["toy_panoptic_train", "half_empty"])
def test_panoptic(run, data):
    """Also where the images of a process are empty."""
    options = ("SOLVER.MAX_ITER", 3, "SOLVER.IMS_PER_BATCH", 2, "DATASETS.TRAIN", f"('{data}',)", "DATASETS.TEST", ())
    two = run("panoptic", "two", *options, flags=TWO)
    assert_same(two)
    start, end = weights(two, when="start"), weights(two)
    assert not all(torch.equal(value, end[name]) for name, value in start.items())
    assert all(value.isfinite().all() for value in end.values())


def test_evaluation(run):
    trained = run("panoptic", "one", "SOLVER.MAX_ITER", 3, "TEST.STEPS_TO_EVALUATE", (2, 3))
    options = ("MODEL.WEIGHTS", trained / "model_final.pth", "TEST.STEPS_TO_EVALUATE", (2, 3))
    two = run("panoptic", "two", *options, flags=("--eval-only", *TWO))
    name = "toy_panoptic_val"
    assert results(two, name) == results(trained, name)
