"""Released checkpoints of the authors, imitated by their documented names and shapes, in our models."""

from pathlib import Path

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from helpers.paths import ROOT

from crbp_d2 import add_crbp_config
from crbp_d2.checkpoint.released import convert, load_released
from crbp_d2.cli import convert_authors_weights

HEAD = "roi_heads.mask_head."

# name in the released file: (shape there, where it belongs in EQUATIONS' letters, our name, our shape)
GALA = {
    "u0_spatial_gate_0": ((128, 256, 3, 3), "spatial_gate_1.weight"),  # P1
    "u0_spatial_bias": ((128, 1, 1), "spatial_gate_1.bias"),  # p
    "u0_spatial_gate_1": ((1, 128, 3, 3), "spatial_gate_2.weight"),  # P2
    "u0_combine_bias": ((256, 1, 1), "gate_bias"),  # b
    "w_gate_inh": ((256, 256, 3, 3), "inhibition.weight"),  # W_S
    "w_gate_exc": ((256, 256, 3, 3), "excitation.weight"),  # W_F
    "alpha": ((256, 1, 1), "alpha"),
    "mu": ((256, 1, 1), "mu"),
    "u0_channel_gate_0.weight": ((64, 256, 1, 1), "channel_gate_1.weight"),  # V1
    "u0_channel_gate_0.bias": ((64,), "channel_gate_1.bias"),
    "u0_channel_gate_1.weight": ((256, 64, 1, 1), "channel_gate_2.weight"),  # V2
    "u1_gate.weight": ((256, 256, 1, 1), "update_gate.weight"),  # U
    "u1_gate.bias": ((256,), "update_gate.bias"),
    "bn.0.weight": ((256,), "inhibition_norm.weight"),
    "bn.0.bias": ((256,), "inhibition_norm.bias"),
    "bn.1.weight": ((256,), "excitation_norm.weight"),
    "bn.1.bias": ((256,), "excitation_norm.bias"),
}
HEAD_LAYERS = {
    "horizontal_norm.weight": "norm.weight",
    "horizontal_norm.bias": "norm.bias",
    "horizontal_norm.running_mean": "norm.running_mean",
    "horizontal_norm.running_var": "norm.running_var",
    "horizontal_norm.num_batches_tracked": "norm.num_batches_tracked",
    "deconv.weight": "deconv.weight",
    "deconv.bias": "deconv.bias",
    "predictor.weight": "predictor.weight",
    "predictor.bias": "predictor.bias",
}
HGRU = {
    "alpha": ((25, 1, 1), "alpha"),
    "gamma": ((25, 1, 1), "gamma"),
    "kappa": ((25, 1, 1), "kappa"),
    "w": ((25, 1, 1), "omega"),
    "mu": ((25, 1, 1), "mu"),
    "w_gate_inh": ((25, 25, 15, 15), "inhibition.weight"),
    "w_gate_exc": ((25, 25, 15, 15), "excitation.weight"),
    "u1_gate.weight": ((25, 25, 1, 1), "input_gate.weight"),
    "u1_gate.bias": ((25,), "input_gate.bias"),
    "u2_gate.weight": ((25, 25, 1, 1), "update_gate.weight"),
    "u2_gate.bias": ((25,), "update_gate.bias"),
    "bn.1.weight": ((25,), "inhibition_norm.weight"),
    "bn.1.bias": ((25,), "inhibition_norm.bias"),
    "bn.3.weight": ((25,), "excitation_norm.weight"),
    "bn.3.bias": ((25,), "excitation_norm.bias"),
}
UNUSED = [f"module.unit1.bn.{k}.{part}" for k in (0, 2) for part in ("weight", "bias")]


def build(config):
    cfg = get_cfg()
    add_crbp_config(cfg)
    cfg.merge_from_file(str(ROOT / "configs" / config))
    cfg.MODEL.WEIGHTS, cfg.MODEL.DEVICE = "", "cpu"
    return build_model(cfg)


@pytest.fixture(scope="module")
def released():
    """Random values under the released names, and what each should become."""
    torch.manual_seed(0)
    file, truth = {}, {}
    for name, (shape, ours) in GALA.items():
        value = torch.randn(shape)
        file[f"{HEAD}recurrent.{name}"] = value
        file[f"{HEAD}mask_fcn_rnn.{name}"] = value
        truth[f"{HEAD}recurrence.cell.{ours}"] = value
    ours_now = build("panoptic_R50_crbp.yaml").state_dict()
    for name, ours in HEAD_LAYERS.items():
        file[HEAD + name] = truth[HEAD + ours] = torch.randn(ours_now[HEAD + ours].shape).to(
            ours_now[HEAD + ours].dtype
        )
    for name, value in ours_now.items():  # the rest has detectron2's own names
        if not name.startswith(HEAD):
            file[name] = truth[name] = torch.randn(value.shape).to(value.dtype)
    file["pixel_mean"] = torch.zeros(3, 1, 1)
    return file, truth


@pytest.fixture
def tool():
    return convert_authors_weights.main


def test_panoptic_file_becomes_model_weights(released, tool, tmp_path, capsys):
    file, truth = released
    torch.save({"model": file, "iteration": 89999}, tmp_path / "released.pth")
    tool(["--model", "panoptic", str(tmp_path / "released.pth"), str(tmp_path / "converted.pth")])
    printed = capsys.readouterr().out

    model = build("panoptic_R50_crbp.yaml")
    incompatible = DetectionCheckpointer(model).load(str(tmp_path / "converted.pth"))
    assert "matching_heuristics" not in incompatible
    state = model.state_dict()
    assert set(state) == set(truth)
    for name, value in truth.items():
        assert torch.equal(state[name].squeeze(), value.squeeze()), name
    named = {line.split(": ")[-1] for line in printed.splitlines() if line.startswith("left out")}
    assert named == {"pixel_mean", *(name for name in file if "mask_fcn_rnn" in name)}


def test_pathfinder_file_becomes_model_weights(tool, tmp_path):
    torch.manual_seed(0)
    names = {
        f"module.unit1.{name}": (shape, f"sem_seg_head.recurrence.cell.{ours}") for name, (shape, ours) in HGRU.items()
    }
    names |= {
        "module.conv0.weight": ((25, 1, 7, 7), "backbone.conv.weight"),
        "module.conv0.bias": ((25,), "backbone.conv.bias"),
        "module.bn.weight": ((25,), "sem_seg_head.norm.weight"),
        "module.bn.bias": ((25,), "sem_seg_head.norm.bias"),
        "module.conv6.weight": ((2, 25, 1, 1), "sem_seg_head.predictor.weight"),
        "module.conv6.bias": ((2,), "sem_seg_head.predictor.bias"),
    }
    file = {name: torch.randn(shape) for name, (shape, _) in names.items()}
    torch.save({"state_dict": file | {name: torch.randn(25) for name in UNUSED}}, tmp_path / "released.pth")
    tool(["--model", "pathfinder", str(tmp_path / "released.pth"), str(tmp_path / "converted.pth")])
    model = build("pathfinder/PF14_hgru_crbp_released.yaml")
    DetectionCheckpointer(model).load(str(tmp_path / "converted.pth"))
    state = model.state_dict()
    assert set(state) == {ours for _, ours in names.values()}
    for name, (_, ours) in names.items():
        assert torch.equal(state[ours], file[name]), name


def test_wrong_files_are_refused_by_name(released, tool, tmp_path):
    file, _ = released
    target = build("panoptic_R50_crbp.yaml").state_dict()
    key = f"{HEAD}recurrent.w_gate_inh"

    with pytest.raises(ValueError, match="nothing .*cell.inhibition.weight"):
        convert({name: value for name, value in file.items() if "w_gate_inh" not in name}, "panoptic", target)
    with pytest.raises(ValueError, match=r"w_gate_inh is \(256, 256, 5, 5\), but"):
        wide = torch.zeros(256, 256, 5, 5)
        convert({**file, key: wide, f"{HEAD}mask_fcn_rnn.w_gate_inh": wide}, "panoptic", target)
    with pytest.raises(ValueError, match="mask_fcn_rnn.w_gate_inh and .* differ"):
        convert({**file, key: file[key] + 1}, "panoptic", target)

    out = str(tmp_path / "out.pth")
    with pytest.raises(SystemExit, match="nothing.pth"):
        tool(["--model", "panoptic", str(tmp_path / "nothing.pth"), out])
    torch.save({"model": [1, 2]}, tmp_path / "list.pth")
    with pytest.raises(SystemExit, match="list.pth .*under 'model'"):
        tool(["--model", "panoptic", str(tmp_path / "list.pth"), out])
    torch.save({"model": file}, tmp_path / "same.pth")
    with pytest.raises(SystemExit, match="OUT is the file IN"):
        tool(["--model", "panoptic", str(tmp_path / "same.pth"), str(tmp_path / "same.pth")])
    assert not Path(out).exists()


class RunsCode:
    def __reduce__(self):
        return (Path.touch, (Path("executed"),))


def test_code_in_a_file_is_not_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": {"weight": RunsCode()}}, "evil.pth")
    with pytest.raises(ValueError, match="evil.pth is not a file of tensors"):
        load_released("evil.pth", "panoptic")
    assert not Path("executed").exists()
