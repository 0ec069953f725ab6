"""Kernels and waits of training and inference, counted on the pretended device of the tests; no card is needed.

A cuDNN kernel may be several on a card. C: channels.
"""

import copy
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path

import torch
from detectron2.config import get_cfg
from detectron2.utils.events import EventStorage

from crbp_d2 import Trainer, add_crbp_config
from crbp_d2.cells import build_cell
from crbp_d2.layers.convolution import set_convolution
from crbp_d2.recurrence import Anderson, Broyden, FixedSteps, Implicit, NeumannSeries, RandomSteps, Recurrence
from tools.data_sets import free
from tools.soak.small_runs import CONFIGS, SETS, register_small_sets

from .many_objects import ScriptedExit
from .tables import Table
from .training_step import Problem, mask_problem, pathfinder_problem, plain_step, recurrence_step

TESTS = Path(__file__).resolve().parents[2] / "tests"
DEQ_STEPS = 20
SOLVERS: Mapping[str, Callable] = {
    "anderson": Anderson,
    "broyden": Broyden,
    "FixedSteps": FixedSteps,
    "RandomSteps": partial(RandomSteps, 2),
}
TOY = ("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 16, "MODEL.RPN.POST_NMS_TOPK_TRAIN", 50)


@dataclass(frozen=True)
class Counts:
    """One row: numbers of kernels or of waits of the host.

    baseline: the plain loop by torch's operators, all steps, or what else the row names.
    """

    ours: int
    baseline: int | None = None
    torchdeq: int | None = None


@contextmanager
def pretended_device():
    """The device of tests/helpers, without warnings of solves that do not converge."""
    if str(TESTS) not in sys.path:
        sys.path.append(str(TESTS))
    from helpers.pretended_device import PretendedDevice

    torch.manual_seed(0)
    with warnings.catch_warnings(), PretendedDevice() as device:
        warnings.simplefilter("ignore")
        yield device


def count(device, run: Callable[[], object]) -> dict[str, int]:
    """Kernels and waits of a call, after a first one."""
    run()
    with device.watch() as seen:
        run()
    return {"kernels": seen.kernels.total(), "waits": seen.waits.total()}


def crbp(build: Callable[[], Problem], kind: str) -> Counts:
    """A C-RBP step of 20 evaluations and 15 products, and the plain loop."""
    with pretended_device() as device:
        problem = build().on("cuda")
        set_convolution(problem.cell, "direct")
        recurrence = problem.rule()
        ours = count(device, lambda: recurrence_step(problem, recurrence))
        return Counts(ours[kind], count(device, lambda: plain_step(problem))[kind])


def deq(solver: str, kind: str) -> Counts:
    """A DEQ step of 20 evaluations and 20 products of the mask cell, here and by torchdeq."""
    from torchdeq import get_deq

    with pretended_device() as device:
        cell = build_cell("GalaHGRUCell", 16, kernel_size=3, norm="GN").to("cuda")
        drive = torch.randn(4, 16, 6, 6).to("cuda")
        own = SOLVERS[solver](max_steps=DEQ_STEPS, tol=1e-9)
        recurrence = Recurrence(cell, own, Implicit(own))
        limits = {"f_max_iter": DEQ_STEPS, "b_max_iter": DEQ_STEPS, "f_tol": 1e-9, "b_tol": 1e-9}
        layer = get_deq(f_solver=solver, b_solver=solver, ift=True, **limits)

        def theirs() -> None:
            states, _ = layer(lambda h, tau=1.0: cell(drive, (h,))[0], torch.zeros_like(drive))
            states[-1].sin().sum().backward()

        ours = count(device, lambda: recurrence(drive).state[0].sin().sum().backward())
        return Counts(ours[kind], torchdeq=count(device, theirs)[kind])


def early_exit(kind: str) -> Counts:
    """Inference with 100 RoIs that leave after 3 to 12 of 20 steps, and all steps."""
    with pretended_device() as device, torch.no_grad():
        drive = torch.randn(100, 16, 6, 6).to("cuda")
        early = ScriptedExit(FixedSteps(20), torch.randint(3, 13, (100,)).to("cuda"))
        found = []
        for solver in (early, FixedSteps(20)):
            cell = build_cell("GalaHGRUCell", 16, kernel_size=3)
            recurrence = Recurrence(cell, solver, Implicit(NeumannSeries(3))).to("cuda").eval()
            found.append(count(device, partial(recurrence, drive))[kind])
        return Counts(*found)


def training_step(solver: str, method: str, kind: str) -> Counts:
    """A training step of 6 steps with a series of 3 products, optimizer included."""
    with pretended_device() as device:
        recurrence = Recurrence(
            build_cell("HGRUCell", 8, kernel_size=7), SOLVERS[solver](6), Implicit(NeumannSeries(3))
        )
        set_convolution(recurrence.cell, method)
        recurrence.to("cuda")
        optimizer = torch.optim.SGD(recurrence.parameters(), 0.1)
        drive = torch.randn(2, 8, 12, 12).to("cuda")

        def step() -> None:
            optimizer.zero_grad()
            recurrence(drive).state[0].sin().sum().backward()
            optimizer.step()

        return Counts(count(device, step)[kind])


def iteration(config: str, *options: object, baseline: str = "") -> Counts:
    """Waits of the Trainer's third iteration with all its hooks: the package's, and autograd's beyond a baseline.

    Args:
        config: file in configs/quick.
        baseline: a config whose waits in autograd are detectron2's own.
    """

    def waits(config: str) -> tuple[int, int]:
        with tempfile.TemporaryDirectory() as folder, pretended_device() as device:
            register_small_sets(Path(folder) / "datasets")
            cfg = get_cfg()
            add_crbp_config(cfg)
            cfg.merge_from_file(str(CONFIGS / config))
            common = ("MODEL.DEVICE", "cuda", "OUTPUT_DIR", folder, "TEST.PICTURES", 0, "SOLVER.IMS_PER_BATCH", 2,
                      "DATALOADER.NUM_WORKERS", 0)  # fmt: skip
            cfg.merge_from_list([*common, *(options if config != baseline else TOY)])
            trainer = Trainer(cfg)
            trainer.resume_or_load(resume=False)
            trainer.start_iter = 0
            with EventStorage() as trainer.storage:
                trainer.before_train()
                for trainer.iter in range(3):
                    trainer.storage.iter = trainer.iter
                    with device.watch() as seen:
                        trainer.before_step()
                        trainer.run_step()
                        trainer.after_step()
        return seen.waits_of("crbp_d2"), seen.waits_of("autograd")

    try:
        own, autograd = waits(config)
        return Counts(own + autograd - (waits(baseline)[1] if baseline else 0))
    finally:
        free(*SETS)


def compiled_step(name: str) -> Counts:
    """Kernels of one step of a cell without a graph: compiled by inductor for the CPU, and eager."""
    from torch._inductor.utils import run_and_get_code

    cell = build_cell(name, 8, kernel_size=3, norm="GN")
    drive = torch.randn(3, 8, 7, 7)
    state = cell.initial_state(drive)
    with torch.no_grad():
        _, sources = run_and_get_code(torch.compile(copy.deepcopy(cell)), drive, state)
        calls = "".join(source.split("def call(", 1)[1] for source in sources)
        with pretended_device() as device:
            moved = [cell.to("cuda"), drive.to("cuda"), tuple(part.to("cuda") for part in state)]
            eager = count(device, partial(*moved))["kernels"]
    return Counts(len(re.findall(r"\b(?:cpp_fused\w*|extern_kernels\.\w+)\(", calls)), eager)


_PATHFINDER = ("DATASETS.TRAIN", "('pathfinder_soak_train',)", "DATASETS.TEST", "('pathfinder_soak_val',)",
               "MODEL.RECURRENCE.CELL.KERNEL_SIZE", 15, "MODEL.RECURRENCE.RULE")  # fmt: skip
_iteration = partial(iteration, "pathfinder_hgru_crbp_instant_test.yaml", *_PATHFINDER)
_panoptic = partial(iteration, "panoptic_R18_crbp_toy.yaml", *TOY, baseline="panoptic_R18_baseline_toy.yaml")
_mask, _hgru = partial(mask_problem, 1, 64, 14), partial(pathfinder_problem, 1, 25, 48)
# Work -> kernels or waits, the number at commit cdbb1ad (None: not counted there), and how it is counted now.
ROWS: Mapping[str, tuple[str, int | None, Callable[[], Counts]]] = {
    "C-RBP 20/15, mask cell": ("kernels", 2606, partial(crbp, _mask, "kernels")),
    "C-RBP 20/15, hGRU, direct convolutions": ("kernels", 2458, partial(crbp, _hgru, "kernels")),
    "DEQ 20/20, Anderson": ("kernels", 6180, partial(deq, "anderson", "kernels")),
    "DEQ 20/20, Broyden": ("kernels", 9012, partial(deq, "broyden", "kernels")),
    "DEQ 20/20, Anderson, waits": ("waits", 37, partial(deq, "anderson", "waits")),
    "DEQ 20/20, Broyden, waits": ("waits", 37, partial(deq, "broyden", "waits")),
    "100 RoIs leave after 3 to 12 of 20 steps": ("kernels", 1409, partial(early_exit, "kernels")),
    "100 RoIs leave after 3 to 12 of 20 steps, waits": ("waits", 94, partial(early_exit, "waits")),
    **{
        f"training step, {solver}, {method}": ("waits", before, partial(training_step, solver, method, "waits"))
        for solver, method, before in (
            ("FixedSteps", "direct", 0),
            ("FixedSteps", "fft", 8),
            ("RandomSteps", "direct", 1),
            ("RandomSteps", "fft", None),
        )
    },
    "iteration of the Trainer, panoptic C-RBP": ("waits", 9, _panoptic),
    **{
        f"iteration of the Trainer, Pathfinder {rule}": ("waits", before, partial(_iteration, rule))
        for rule, before in (("crbp", 21), ("bptt", 34), ("progressive", None), ("bptt_every_step", 38))
    },
    "compiled step without a graph, GALA": ("kernels", None, partial(compiled_step, "GalaHGRUCell")),
    "compiled step without a graph, hGRU": ("kernels", None, partial(compiled_step, "HGRUCell")),
}


def launches_table() -> Table:
    """Every row of ROWS, counted."""
    rows = []
    for name, (kind, before, counts) in ROWS.items():
        cells = ["-" if number is None else f"{number:,}" for number in (before, *astuple(counts()))]
        rows.append([name.removesuffix(", waits"), kind, *cells])
    return Table(["work", "counted", "at cdbb1ad", "now", "baseline", "torchdeq"], rows)
