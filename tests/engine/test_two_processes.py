"""Two processes with one seed compute the same to the last bit, however busy the machine is."""

import os
import subprocess
import sys
import time

import pytest
import torch
from helpers.paths import ROOT

CONFIGS = ROOT / "configs/quick"
RUNS = {
    "pathfinder_hgru_crbp_instant_test.yaml": (20, ()),
    "panoptic_R18_crbp_toy.yaml": (5, ("MODEL.RPN.POST_NMS_TOPK_TRAIN", 50)),
}
BUSY = "while True: pass"


def start(folder, config, iterations, options, hash_seed):
    """A training in a fresh process with another order of sets of strings, evaluated on nothing."""
    settings = [
        "OUTPUT_DIR", folder, "SEED", 3, "SOLVER.MAX_ITER", iterations, "SOLVER.WARMUP_ITERS", 2, "DATASETS.TEST", (),
        "DATALOADER.NUM_WORKERS", 0, *options,
    ]  # fmt: skip
    # As a rank of one thread, on data that are drawn for this test.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "SMALL_SETS": str(folder.parent / f"data_of_{folder.name}")}
    environment |= {"PYTHONHASHSEED": str(hash_seed)}
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    command = [sys.executable, ROOT / "tests/helpers/small_run.py", "--num-gpus", 0, "--config-file", CONFIGS / config]
    return subprocess.Popen(
        [str(part) for part in (*command, *settings)],
        env={**environment, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize("config", RUNS)
def test_weights_are_bit_for_bit_the_same(config, tmp_path):
    iterations, options = RUNS[config]
    weights = []
    for number, (name, others) in enumerate((("quiet", 0), ("busy", 2))):
        busy = []
        process = start(tmp_path / name, config, iterations, options, hash_seed=number)
        try:
            # Imports decide nothing: the machine is busy from when the run has a folder.
            while others and process.poll() is None and not (tmp_path / name).exists():
                time.sleep(0.01)
            busy += [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(others)]
            said, _ = process.communicate()
        finally:
            for other in (process, *busy):
                other.kill()
                other.wait()
        assert process.returncode == 0, said
        checkpoint = torch.load(tmp_path / name / "model_final.pth", weights_only=True)
        assert checkpoint["iteration"] == iterations - 1
        weights.append(checkpoint["model"])
    assert weights[0].keys() == weights[1].keys()
    assert not [name for name in weights[0] if not torch.equal(weights[0][name], weights[1][name])]
