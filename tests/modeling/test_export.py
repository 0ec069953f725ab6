"""The mask head and other recurrences through torch.export, ONNX and torch.jit.trace."""

import re
from types import SimpleNamespace

import pytest
import torch
from detectron2.layers import ShapeSpec
from helpers.paths import ROOT

from crbp_d2.cells import CELLS, GalaHGRUCell, build_cell
from crbp_d2.layers.convolution import METHODS, set_convolution
from crbp_d2.modeling import RecurrentMaskHead
from crbp_d2.recurrence import Anderson, Broyden, learning_rule

# Checks of shapes are recorded as constants, which torch warns of.
pytestmark = pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs/EXPORT.md").read_text(), flags=re.S)
SHAPES = ({0: torch.export.Dim("rois", min=1)},)
# One a gradient: within an export all of a gradient's rules are the same.
PLAIN_RULES = ("bptt_every_step", "tbptt", "crbp", "progressive")


def head_of(rule="crbp", cell=None, **settings):
    torch.manual_seed(0)
    recurrence = learning_rule(rule, cell or GalaHGRUCell(8), steps=3, **settings)
    head = RecurrentMaskHead(ShapeSpec(channels=8), recurrence=recurrence, num_classes=3, conv_dim=8)
    # Logits of a size that shows a difference.
    torch.nn.init.normal_(head.predictor.weight)
    return head.eval()


class Logits(torch.nn.Module):
    def __init__(self, head):
        super().__init__()
        self.head = head

    def forward(self, x):
        return self.head.layers(x)


def exported(head):
    return torch.export.export(Logits(head), (torch.randn(3, 8, 14, 14),), dynamic_shapes=SHAPES).module()


def traced(head):
    return torch.jit.trace(Logits(head), torch.randn(3, 8, 14, 14))


EXPORTS = pytest.mark.parametrize("export", [exported, traced])


def agrees(found, head):
    for count in (2, 7, 1):
        x = torch.randn(count, 8, 14, 14)
        with torch.no_grad():
            torch.testing.assert_close(found(x), head.layers(x), rtol=1e-4, atol=1e-4)


@EXPORTS
@pytest.mark.parametrize("rule", PLAIN_RULES)
def test_any_number_of_rois_under_every_rule_of_plain_steps(rule, export):
    head = head_of(rule)
    agrees(export(head), head)
    assert head.recurrence.last_stats.residual.shape == (1,)  # of the last plain run; an export leaves none


@EXPORTS
@pytest.mark.parametrize("name", CELLS)
def test_every_cell(name, export):
    head = head_of(cell=build_cell(name, 8, kernel_size=3, norm="GN"))
    agrees(export(head), head)


@EXPORTS
@pytest.mark.parametrize("method", METHODS)
def test_convolutions_are_exported_as_direct_ones(method, export):
    head = head_of(cell=build_cell("HGRUCell", 8, kernel_size=5, norm="GN"))
    set_convolution(head.recurrence, method)
    agrees(export(head), head)


@EXPORTS
def test_early_exit_is_rejected(export):
    with pytest.raises(RuntimeError, match=r"EarlyExit.*cannot be traced or exported"):
        export(head_of(early_stop=0.01))


@EXPORTS
@pytest.mark.parametrize("solver", [Anderson(), Broyden()])
def test_accelerated_solvers_are_rejected(solver, export):
    head = head_of()
    head.recurrence.solver = solver
    with pytest.raises(RuntimeError, match=rf"{type(solver).__name__}.*cannot be traced or exported.*FixedSteps"):
        export(head)


def test_the_code_of_the_page_and_onnx_runtime(tmp_path, monkeypatch):
    onnxruntime = pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    head = RecurrentMaskHead(
        ShapeSpec(channels=256), recurrence=learning_rule("crbp", GalaHGRUCell(256), steps=2), num_classes=3
    )
    names = {"model": SimpleNamespace(roi_heads=SimpleNamespace(mask_head=head))}
    for block in BLOCKS:
        if "cuda" not in block:  # tests/gpu runs these
            exec(block, names)
    session = onnxruntime.InferenceSession("mask_head.onnx", providers=["CPUExecutionProvider"])
    for count in (2, 7):
        x = torch.randn(count, 256, 14, 14)
        with torch.no_grad():
            truth = head.layers(x)
        (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), truth, rtol=1e-3, atol=1e-5)
        for other in (names["exported"].module(), names["traced"]):
            torch.testing.assert_close(other(x), truth, rtol=1e-3, atol=1e-5)
    assert truth.abs().max() > 1e-3
