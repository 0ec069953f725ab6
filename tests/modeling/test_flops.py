"""Parameters and operations against counting by hand."""

import re

import pytest
from detectron2.modeling import build_model
from helpers.paths import ROOT

from crbp_d2.cells import ConvGRUCell
from crbp_d2.cli.analyze_model import main
from crbp_d2.layers.convolution import set_convolution
from crbp_d2.model_zoo import get_config
from crbp_d2.modeling.flops import analyze, step_flops


def test_a_step_of_a_gru_is_its_convolutions():
    cell = ConvGRUCell(6, 3, norm="none")
    weights = sum(p.numel() for p in cell.parameters() if p.dim() == 4)
    assert step_flops(cell, (6, 5, 7)) == pytest.approx(weights * 5 * 7, rel=0.02)


def test_the_table_of_a_panoptic_model(capsys):
    config = str(ROOT / "configs/quick/panoptic_R18_recurrent_toy.yaml")
    main(["--config-file", config, "--size", "64", "96", "MODEL.RECURRENCE.STEPS", "3", "MODEL.DEVICE", "cpu"])
    table = capsys.readouterr().out
    rows = {row[0]: row[1:] for row in re.findall(r"^\| (\S+) +\| +([\d,]+) +\| +([\d.]+)", table, flags=re.M)}
    count = {name: int(values[0].replace(",", "")) for name, values in rows.items()}
    assert count["model"] == sum(
        count[part] for part in ("backbone", "sem_seg_head", "proposal_generator", "roi_heads")
    )
    assert float(rows["model"][1]) > float(rows["backbone"][1]) > 0
    # Of 64 x 96 px at stride 4.
    assert "| sem_seg_head.recurrence" in table and "32 x 16 x 24" in table


def test_an_unknown_key_is_named(capsys):
    with pytest.raises(SystemExit, match="MODEL.RECURRENCE.STEP"):
        main(["--config-file", str(ROOT / "configs/panoptic_R50_crbp.yaml"), "MODEL.RECURRENCE.STEP", "3"])


def test_an_analysis_leaves_the_model_as_it_was():
    cfg = get_config("quick/pathfinder_hgru_crbp_instant_test.yaml")
    cfg.MODEL.DEVICE = "cpu"
    model = build_model(cfg).train()
    set_convolution(model, "fft")
    before = [(part.training, getattr(part, "method", None)) for part in model.modules()]
    parts, costs, _ = analyze(cfg, model, (32, 32))
    assert parts[0].flops > 0 and costs[0].name == "sem_seg_head.recurrence"
    assert [(part.training, getattr(part, "method", None)) for part in model.modules()] == before
    assert {method for _, method in before} == {None, "fft"}
    assert not [part for part in model.modules() if part._forward_pre_hooks]
