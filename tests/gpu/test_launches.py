"""Kernels and waits of the pretended device, as upper bounds; small kernels are bound by their launches on a GPU."""

import warnings

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.utils.events import EventStorage
from helpers.paths import ROOT
from helpers.pretended_device import PretendedDevice

from crbp_d2 import Trainer, add_crbp_config
from crbp_d2.cells import build_cell
from crbp_d2.layers.convolution import set_convolution
from crbp_d2.recurrence import (
    Anderson,
    Broyden,
    EarlyExit,
    FixedSteps,
    Implicit,
    NeumannSeries,
    RandomSteps,
    Recurrence,
)
from tools.benchmarks.training_step import mask_problem, pathfinder_problem, plain_step, recurrence_step

# Upper bounds: kernels relative to the plain loop, to torchdeq and to all steps; numbers of waits.
BOUNDS = {
    "kernels of C-RBP, mask cell": 1.10,
    "kernels of C-RBP, hGRU": 1.10,
    "kernels of DEQ, anderson": 1.0,
    "kernels of DEQ, broyden": 1.0,
    "kernels of early exit": 1.0,
    "waits of early exit": 8,
    "waits of FixedSteps, direct": 0,
    "waits of FixedSteps, fft": 0,
    "waits of RandomSteps, direct": 0,
    "waits of RandomSteps, fft": 0,
    "own waits of an iteration, panoptic": 2,
    "own waits of an iteration, pathfinder": 2,
}


@pytest.fixture
def gpu():
    with warnings.catch_warnings(), PretendedDevice() as device:
        warnings.simplefilter("ignore")
        yield device


def counted(gpu, run):
    """What a second call of `run` launches and waits for."""
    run()
    with gpu.watch() as seen:
        run()
    return seen


def check(name, value):
    print(f"{name}: {value:.2f}")
    assert value <= BOUNDS[name], f"{name}: {value:.2f}"


PROBLEMS = {"mask cell": lambda: mask_problem(1, 64, 14), "hGRU": lambda: pathfinder_problem(1, 25, 48)}


@pytest.mark.parametrize("name", [f"kernels of C-RBP, {name}" for name in PROBLEMS])
def test_crbp_against_the_plain_loop(name, gpu):
    problem = PROBLEMS[name.split(", ")[1]]().on("cuda")
    set_convolution(problem.cell, "direct")
    recurrence = problem.rule()
    own = counted(gpu, lambda: recurrence_step(problem, recurrence)).kernels.total()
    check(name, own / counted(gpu, lambda: plain_step(problem)).kernels.total())


@pytest.mark.parametrize("name", ["kernels of DEQ, anderson", "kernels of DEQ, broyden"])
def test_deq_against_torchdeq(name, gpu):
    torchdeq = pytest.importorskip("torchdeq")
    kind = name.split(", ")[1]
    cell = build_cell("GalaHGRUCell", 16, kernel_size=3, norm="GN").to("cuda")
    drive = torch.randn(4, 16, 6, 6).to("cuda")
    deq = torchdeq.get_deq(f_solver=kind, b_solver=kind, f_max_iter=20, b_max_iter=20, f_tol=1e-9, b_tol=1e-9, ift=True)
    solver = {"anderson": Anderson, "broyden": Broyden}[kind](max_steps=20, tol=1e-9)
    recurrence = Recurrence(cell, solver, Implicit(solver))

    def theirs():
        out, _ = deq(lambda h, tau=1.0: cell(drive, (h,))[0], torch.zeros_like(drive))
        out[-1].sin().sum().backward()

    own = counted(gpu, lambda: recurrence(drive).state[0].sin().sum().backward())
    check(name, own.kernels.total() / counted(gpu, theirs).kernels.total())


class Scripted(EarlyExit):
    """Samples leave after numbers of steps that are given."""

    exits: torch.Tensor

    def stops(self, taken, samples, residual):
        return taken >= self.exits[samples]


@pytest.mark.parametrize("name", ["kernels of early exit", "waits of early exit"])
def test_early_exit_against_all_steps(name, gpu):
    drive, found = torch.randn(100, 16, 6, 6).to("cuda"), []
    early = Scripted(FixedSteps(20))
    early.exits = torch.randint(3, 13, (100,)).to("cuda")
    for solver in (FixedSteps(20), early):
        cell = build_cell("GalaHGRUCell", 16, kernel_size=3)
        recurrence = Recurrence(cell, solver, Implicit(NeumannSeries(3))).to("cuda").eval()
        with torch.no_grad():
            found.append(counted(gpu, lambda r=recurrence: r(drive)))
    every, exits = found
    ratio = exits.kernels.total() / every.kernels.total()
    check(name, exits.waits.total() if name.startswith("waits") else ratio)


SOLVERS = {"FixedSteps": lambda: FixedSteps(6), "RandomSteps": lambda: RandomSteps(2, 6)}


@pytest.mark.parametrize("name", [name for name in BOUNDS if "Steps" in name])
def test_fixed_and_random_steps_do_not_wait(name, gpu):
    solver, method = name.removeprefix("waits of ").split(", ")
    recurrence = Recurrence(build_cell("HGRUCell", 8, kernel_size=7), SOLVERS[solver](), Implicit(NeumannSeries(3)))
    set_convolution(recurrence.cell, method)
    recurrence.to("cuda")
    optimizer = torch.optim.SGD(recurrence.parameters(), 0.1)
    drive = torch.randn(2, 8, 12, 12).to("cuda")

    def step():
        optimizer.zero_grad()
        recurrence(drive).state[0].sin().sum().backward()
        optimizer.step()

    check(name, counted(gpu, step).waits.total())


def iteration(gpu, config, folder, *options):
    """Waits of the third iteration of a training, with all hooks: the package's, and those in autograd."""
    cfg = get_cfg()
    add_crbp_config(cfg)
    cfg.merge_from_file(str(ROOT / "configs/quick" / config))
    cfg.merge_from_list(["MODEL.DEVICE", "cuda", "OUTPUT_DIR", str(folder), "TEST.PICTURES", 0, "SOLVER.IMS_PER_BATCH",
                         2, "DATALOADER.NUM_WORKERS", 0, *options])  # fmt: skip
    folder.mkdir(exist_ok=True)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.start_iter = 0
    with EventStorage() as trainer.storage:
        trainer.before_train()
        for trainer.iter in range(3):
            trainer.storage.iter = trainer.iter
            with gpu.watch() as seen:
                trainer.before_step()
                trainer.run_step()
                trainer.after_step()
    return seen.waits_of("crbp_d2"), seen.waits_of("autograd")


TOY = ("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 16, "MODEL.RPN.POST_NMS_TOPK_TRAIN", 50)
SOAK = ("DATASETS.TRAIN", "('pathfinder_soak_train',)", "DATASETS.TEST", "('pathfinder_soak_val',)")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["own waits of an iteration, panoptic"])
def test_waits_of_a_panoptic_iteration(name, gpu, small_sets, tmp_path):
    own, autograd = iteration(gpu, "panoptic_R18_crbp_toy.yaml", tmp_path / "crbp", *TOY)
    _, baseline = iteration(gpu, "panoptic_R18_baseline_toy.yaml", tmp_path / "baseline", *TOY)
    check(name, own + autograd - baseline)


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["crbp", "bptt", "progressive", "bptt_every_step"])
@pytest.mark.parametrize("name", ["own waits of an iteration, pathfinder"])
def test_waits_of_a_pathfinder_iteration(name, rule, gpu, small_sets, tmp_path):
    options = ("MODEL.RECURRENCE.RULE", rule, "MODEL.RECURRENCE.CELL.KERNEL_SIZE", 15)
    check(name, sum(iteration(gpu, "pathfinder_hgru_crbp_instant_test.yaml", tmp_path, *SOAK, *options)))
