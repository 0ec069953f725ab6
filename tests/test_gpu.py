"""What a GPU computes is what a CPU does: `python -m pytest -m gpu`. Without one this file is skipped as a whole."""

import copy

import pytest
import torch
from helpers.agreement import METHODS, PRECISIONS, check_agreement, error

from crbp_d2.cells import CELLS, build_cell
from crbp_d2.recurrence import RULES, learning_rule

if not torch.cuda.is_available():
    pytest.skip("needs a GPU", allow_module_level=True)

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore::crbp_d2.recurrence.UnconvergedWarning")]
AUTOCAST = {"float16 autocast": (torch.float32, torch.float16, 0.002, 0.02)}


@pytest.fixture(autouse=True)
def full_float32():
    """Convolutions and products in float32 as they are on a CPU."""
    kept = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = kept


@pytest.mark.parametrize("precision", [*PRECISIONS, *AUTOCAST])
@pytest.mark.parametrize("method,kernel_size", METHODS)
@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("rule", RULES)
def test_cells_rules_methods_and_precisions(rule, name, method, kernel_size, precision, monkeypatch):
    monkeypatch.setattr("helpers.agreement.PRECISIONS", {**PRECISIONS, **AUTOCAST})
    check_agreement(rule, name, method, kernel_size, precision, "cuda")


@pytest.mark.parametrize("settings", [{"early_stop": 0.05}, {"chunk_size": 2}, {"neumann_tol": 0.05}], ids=str)
@pytest.mark.parametrize("start", ["zero", "drive"])
@pytest.mark.parametrize("name", CELLS)
def test_what_wraps_the_solve(name, start, settings):
    torch.manual_seed(0)
    cell = build_cell(name, 8, kernel_size=3, norm="GN", timescale=4, start=start)
    drive = torch.randn(5, 8, 9, 8)
    found = []
    for device, part in (("cpu", cell), ("cuda", copy.deepcopy(cell).to("cuda"))):
        recurrence = learning_rule("crbp", part, steps=12, num_terms=6, **settings)
        output = recurrence(drive.to(device))
        (output.state[0].sin().sum() + 1e-3 * output.penalty).backward()
        with torch.no_grad():
            inferred = recurrence.eval()(drive.to(device))
        found.append((inferred.stats.sample_steps.tolist(), inferred.state, [p.grad for p in part.parameters()]))
    (steps, state, gradients), (gpu_steps, gpu_state, gpu_gradients) = found
    assert gpu_steps == steps
    assert error(gpu_state, state) < 1e-4 and error(gpu_gradients, gradients) < 1e-3
