"""Training on the device: changed weights, options of the trainer, one process of DDP, graphs, TF32."""

import copy
import re
import socket

import pytest
import torch
from detectron2.config import get_cfg
from helpers.agreement import error
from helpers.paths import ROOT

from crbp_d2 import Trainer, add_crbp_config
from crbp_d2.cells import HGRUCell, build_cell
from crbp_d2.engine.averaging import AveragedWeights
from crbp_d2.engine.loop import PartwiseTrainer
from crbp_d2.layers.convolution import set_convolution
from crbp_d2.recurrence import FixedSteps, Implicit, NeumannSeries, RandomSteps, Recurrence, learning_rule

pytestmark = pytest.mark.filterwarnings("ignore::crbp_d2.recurrence.UnconvergedWarning")
OPTIMIZERS = {
    "foreach SGD": lambda p: torch.optim.SGD(p, 0.5, momentum=0.9, foreach=True),
    "fused SGD": lambda p: torch.optim.SGD(p, 0.5, momentum=0.9, fused=True),
    # With a small eps, Adam steps along rounding errors.
    "fused Adam": lambda p: torch.optim.Adam(p, 1.0, eps=0.1, fused=True),
    "averaged": lambda p: torch.optim.SGD(p, 0.5, foreach=True),
}


def train(method, optimizer):
    """All weights after four training steps on the device, for "averaged" with an evaluation after each."""
    torch.manual_seed(0)
    recurrence = learning_rule("crbp", build_cell("HGRUCell", 8, kernel_size=7), steps=4, num_terms=3)
    set_convolution(recurrence.cell, method)
    recurrence.to("cuda")
    steps = OPTIMIZERS[optimizer](recurrence.parameters())
    average = AveragedWeights(recurrence, 0.5, "") if optimizer == "averaged" else None
    for _ in range(4):
        drive = torch.randn(2, 8, 12, 12).to("cuda")
        output = recurrence(drive)
        steps.zero_grad()
        (output.state[0].sin().square().mean(dim=1).sum() / 20 + output.penalty).backward()
        steps.step()
        if average is not None:
            with torch.no_grad():
                for p in average.average.module.parameters():
                    p.copy_(torch.roll(p, 1, -1))
                with average.applied():
                    recurrence(drive)
    return [p.detach() for p in recurrence.parameters()]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_fft_follows_changed_weights(optimizer, gpu):
    assert error(train("fft", optimizer), train("direct", optimizer)) < 1e-3


class Data:
    """An endless loader of one stimulus."""

    def __iter__(self):
        image, target = torch.rand(1, 12, 12) * 255, torch.randint(2, (12, 12))
        while True:
            yield [{"image": image, "sem_seg": target, "height": 12, "width": 12}] * 2


def quick(*options):
    cfg = get_cfg()
    add_crbp_config(cfg)
    cfg.merge_from_file(str(ROOT / "configs/quick/pathfinder_hgru_crbp_instant_test.yaml"))
    cfg.merge_from_list(["MODEL.DEVICE", "cuda", "SEED", 1, "TEST.PICTURES", 0, "SOLVER.WARMUP_ITERS", 0, *options])
    return cfg


@pytest.mark.parametrize("kind", ["foreach", "fused"])
def test_an_overflow_reaches_the_scaler(kind, gpu):
    model = Trainer.build_model(quick())
    optimizer = torch.optim.SGD(model.parameters(), 0.1, **{kind: True})
    trainer = PartwiseTrainer(model, Data(), optimizer, dtype=torch.float16)
    trainer.grad_scaler = torch.amp.GradScaler("cuda", init_scale=2.0**100)
    before, scale = copy.deepcopy(model.state_dict()), trainer.grad_scaler.get_scale()
    trainer._write_metrics = lambda *_, **__: None
    trainer.run_step()
    after = dict(model.named_parameters())
    assert trainer.grad_scaler.get_scale() == scale / 2
    assert all(torch.equal(before[name], p) for name, p in after.items())


OPTIONS = {
    "plain": (),
    "averaged": ("SOLVER.EMA.ENABLED", True, "TEST.EVAL_PERIOD", 2),
    "accumulated": ("SOLVER.ACCUMULATE", 2),
    "clipped": ("SOLVER.CLIP_GRADIENTS.ENABLED", True, "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "full_model"),
    "validated": ("TEST.VALIDATION_IMAGES", 2, "TEST.EVAL_PERIOD", 2),
    "deq": ("MODEL.RECURRENCE.RULE", "deq"),
    "progressive": ("MODEL.RECURRENCE.RULE", "progressive"),
    "float16": ("SOLVER.AMP.ENABLED", True),
    "bfloat16": ("SOLVER.AMP.ENABLED", True, "SOLVER.AMP.DTYPE", "bfloat16"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONS)
def test_options_of_the_trainer(name, gpu, small_sets, tmp_path):
    sets = ("DATASETS.TRAIN", "('pathfinder_soak_train',)", "DATASETS.TEST", "('pathfinder_soak_val',)")
    found = {}
    for device in ("cuda", "cpu"):
        amp = "SOLVER.AMP.ENABLED" in OPTIONS[name] and device == "cpu"
        options = () if amp else OPTIONS[name]
        cfg = quick(*sets, "SOLVER.MAX_ITER", 3, "OUTPUT_DIR", str(tmp_path / device), "DATALOADER.NUM_WORKERS", 0,
                    "MODEL.DEVICE", device, "TEST.STEPS_TO_EVALUATE", (), *options)  # fmt: skip
        trainer = Trainer(cfg)
        trainer.resume_or_load(resume=False)
        trainer.train()
        found[device] = [p.detach() for p in trainer.model.parameters()]
        assert all(p.device.type == device for p in found[device])
    assert error(found["cuda"], found["cpu"]) < (0.05 if "SOLVER.AMP.ENABLED" in OPTIONS[name] else 1e-3)


def test_one_process_of_ddp(gpu):
    recurrence = learning_rule("crbp", HGRUCell(4, kernel_size=3), steps=4, num_terms=3).to("cuda")
    drive = torch.randn(2, 4, 8, 8).to("cuda")
    with socket.socket() as free_socket:
        free_socket.bind(("localhost", 0))
        address = f"tcp://localhost:{free_socket.getsockname()[1]}"
    torch.distributed.init_process_group("nccl" if gpu is None else "gloo", address, world_size=1, rank=0)
    try:
        gradients = []
        for module in (recurrence, torch.nn.parallel.DistributedDataParallel(recurrence)):
            recurrence.zero_grad()
            output = module(drive)
            (output.state[0].sin().sum() + output.penalty).backward()
            gradients.append([p.grad.clone() for p in recurrence.parameters()])
    finally:
        torch.distributed.destroy_process_group()
    assert error(gradients[1], gradients[0]) < 1e-5


SOLVERS = {"fixed": lambda: FixedSteps(6), "random": lambda: RandomSteps(2, 6)}


@pytest.mark.parametrize("name", SOLVERS)
def test_fixed_runs_never_wait(name, gpu):
    solver = SOLVERS[name]()
    recurrence = Recurrence(HGRUCell(4, kernel_size=3), solver, Implicit(NeumannSeries(3))).to("cuda")
    set_convolution(recurrence.cell, "direct")
    drive = torch.randn(2, 4, 8, 8).to("cuda")
    recurrence(drive).state[0].sum().backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        recurrence(drive).state[0].sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_fixed_run_is_captured_as_on_the_page(gpu):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/EXPORT.md").read_text(), flags=re.DOTALL)
    (code,) = [block for block in blocks if "CUDAGraph" in block]
    page = {}
    exec(code, page)
    recurrence, drive, state, graph = (page[name] for name in ("recurrence", "drive", "state", "graph"))
    with torch.no_grad():
        for _ in range(2):
            assert error([state], recurrence(drive).state) < 1e-5
            drive.copy_(torch.randn(8, 32, 14, 14).to("cuda"))
            for weight in recurrence.parameters():
                weight.mul_(1.1)
            graph.replay()
        assert error([state], recurrence(drive).state) < 1e-5


@pytest.mark.parametrize("tf32", [False, True])
def test_tf32_limits_the_precision(tf32, gpu):
    cell = build_cell("GalaHGRUCell", 32, kernel_size=3, norm="GN")
    drive = torch.randn(2, 32, 12, 12)
    expected = learning_rule("crbp", cell, steps=10)(drive).state
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
    recurrence = learning_rule("crbp", copy.deepcopy(cell).to("cuda"), steps=10)
    assert error(recurrence(drive.to("cuda")).state, expected) < (2e-2 if tf32 else 1e-4)
