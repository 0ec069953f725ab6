"""A run of the study from training to its record, in seconds."""

import json
import math
import runpy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.modeling import build_model
from fvcore.common.config import CfgNode
from helpers.paths import ROOT

from crbp_d2.cells import HGRUCell
from crbp_d2.engine import setup
from crbp_d2.modeling import check_recurrence_config
from tools.pathfinder_study import figure_style
from tools.pathfinder_study import job as study
from tools.pathfinder_study.check import Check, check_checkpoints
from tools.pathfinder_study.records import read_record
from tools.pathfinder_study.report import write_report
from tools.pathfinder_study.run_measures import first_batches, held_out_set, quality_by_step
from tools.pathfinder_study.runs import JOBS, RUNS, SCALES, Run

TINY = (
    "DATASETS.TRAIN", "('pathfinder_PF6s_stream',)", "SOLVER.CHECKPOINT_PERIOD", 2, "DATALOADER.NUM_WORKERS", 0,
    "MODEL.RECURRENCE.STEPS", 2, "SOLVER.IMS_PER_BATCH", 2,
)  # fmt: skip


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    scale = replace(SCALES["small"], specs={"PF6s": 6, "PF9s": 4}, options=TINY, iterations=4, warmup=0.25)
    scale = replace(scale, test_seed=77)
    monkeypatch.setitem(SCALES, "tiny", scale)
    monkeypatch.setattr(study, "PROBE_PERIOD", 2)
    monkeypatch.setattr(study, "PROBE_STIMULI", 4)
    monkeypatch.setattr(study, "STATE_STIMULI", 4)
    return lambda name, seed=0: study.Job(name, seed, "tiny", tmp_path, tmp_path / "output" / f"{name}_s{seed}")


def test_run_is_trained_tested_and_recorded(tiny, tmp_path):
    job = tiny("hgru_crbp")
    study.run_job(job)
    record = json.loads((tmp_path / SCALES["small"].folder / "runs/hgru_crbp_s0.json").read_text())
    assert (record["run"], record["seed"], record["rule"], record["steps"]) == ("hgru_crbp", 0, "crbp", 2)
    assert record["probe"]["iteration"] == [4] and record["curve"]["iteration"][-1] == 4
    assert (
        record["seconds"]["training"] == pytest.approx(4 * record["seconds"]["iteration"])
        and record["seconds"]["iteration"] > 0
    )
    assert record["quality"]["PF6s"]["steps"] == [*range(1, 33)]
    assert len(record["state_space"]["projection"]) == 6 and len(record["stability"]["residual"]) == 32
    assert record["learning_rate"] == 0.005 and record["commit"] is None
    # The weights reproduce the scores.
    cfg = setup(job.arguments())
    model = build_model(cfg).eval()
    model.load_state_dict(torch.load(tmp_path / record["checkpoint"], weights_only=True)["model"])
    name = held_out_set("PF6s", 6, 77)
    assert quality_by_step(model, first_batches(cfg, name, 6), name, (32,)) == record["quality"]["PF6s"]["f1"][-1:]
    assert record["parameters"] == sum(p.numel() for p in model.parameters())


def test_run_without_steps_has_no_measures_of_states(tiny, tmp_path):
    job = tiny("ff2", seed=5)
    study.run_job(job)
    record = json.loads(job.record.read_text())
    assert record["steps"] is None and record["quality"]["PF9s"]["steps"] == [0]
    assert (tmp_path / record["checkpoint"]).exists() and not {"stability", "state_space", "probe"} & record.keys()
    layers = [key for key in torch.load(job.output / "model_final.pth", weights_only=False)["model"] if "layers" in key]
    assert any("1" in key for key in layers) and not any(".2." in key for key in layers)


def test_killed_run_resumes(tiny, monkeypatch):
    job = tiny("hgru_bptt")
    seen = []

    class Killed(Exception):
        pass

    def after_step(hook):
        seen.append(hook.trainer.iter)
        hook.trainer.storage.put_scalar("processor_time", 0.5)
        hook.trainer.storage.put_scalar("wall_time", 0.6)
        if seen == [0, 1, 2]:
            raise Killed

    monkeypatch.setattr(study.StepTimes, "after_step", after_step)
    with pytest.raises(Killed):
        study.run_job(job)
    assert not job.record.exists()
    study.run_job(job)
    # It resumes from the checkpoint after two iterations.
    assert seen == [0, 1, 2, 2, 3]
    assert json.loads(job.record.read_text())["curve"]["iteration"][-1] == 4


def test_folder_with_other_settings_is_not_resumed(tiny, monkeypatch):
    job = tiny("ff2")
    monkeypatch.setitem(JOBS, "ff2", replace(RUNS["ff2"], rate=1))
    study.run_job(job)
    monkeypatch.setitem(JOBS, "ff2", replace(RUNS["ff2"], rate=3, training=0.5))
    job.record.unlink()
    with pytest.raises(ValueError, match=r"SOLVER.BASE_LR 0.005 \(now 0.015\)"):
        study.run_job(job)
    assert not job.record.exists()


def test_run_that_diverges_past_its_steps_is_recorded(tiny, monkeypatch):
    job = tiny("hgru_bptt")
    step = HGRUCell.forward
    counts = {"evaluations": 0}

    def diverging(cell, drive, state):
        if torch.equal(state[0], cell.initial_state(drive)[0]):
            counts["evaluations"] = 0
        counts["evaluations"] += 1
        return tuple(part * (1 if counts["evaluations"] <= 5 else math.nan) for part in step(cell, drive, state))

    monkeypatch.setattr(HGRUCell, "forward", diverging)
    study.run_job(job)
    record = json.loads(job.record.read_text())
    scores = record["quality"]["PF6s"]["f1"]
    assert all(isinstance(score, float) for score in scores[:5]) and scores[5:] == [None] * 27
    assert record["probe"]["f1_far"] == [None] and record["probe"]["f1"][0] is not None
    assert record["stability"]["spectral_radius"] == []
    read = read_record(job.record)
    assert math.isnan(read.f1("PF6s", 4)) and math.isfinite(read.f1("PF6s"))
    write_report(job.record.parents[1], job.root)
    (entry,) = json.loads((job.record.parents[1] / "summary.json").read_text())["checkpoints"]
    assert entry["reported"][1] == {"spec": "PF6s", "steps": 8, "f1": None}


def test_checkpoints_are_compared_with_their_reports(tiny, tmp_path, monkeypatch):
    # Only the summary of the report is read.
    monkeypatch.setattr(figure_style, "write_figure", lambda path, *args, **kwargs: Path(path).write_bytes(b""))
    job = tiny("hgru_bptt")
    study.run_job(job)
    write_report(tmp_path / SCALES["small"].folder, tmp_path)
    rows = [*check_checkpoints(job.scale, tmp_path, 78, tmp_path / "check")]
    cfg = setup(job.arguments())
    model = build_model(cfg).eval()
    model.load_state_dict(torch.load(tmp_path / job.checkpoint, weights_only=True)["model"])
    expected = []
    for spec, count in job.scale.specs.items():
        name = held_out_set(spec, count, 78)
        for t in (2, 8):
            expected += [(spec, t, *quality_by_step(model, first_batches(cfg, name, count), name, (t,)))]
    assert [(row.spec, row.steps, row.found) for row in rows] == expected
    assert replace(rows[0], reported=rows[0].found + 0.0199).holds
    assert not replace(rows[0], reported=rows[0].found - 0.0201).holds
    assert not replace(rows[0], reported=math.nan).holds
    assert replace(rows[0], reported=math.nan, found=math.nan).holds
    assert not [*check_checkpoints(job.scale, tmp_path, 78, tmp_path / "check", ["another"])]
    for name in ("hgru_bptt", "hgru_bptt_s0"):
        assert [*check_checkpoints(job.scale, tmp_path, 78, tmp_path / "check", [name])] == rows
    with pytest.raises(ValueError, match="those of seed 77"):
        next(check_checkpoints(job.scale, tmp_path, 77, tmp_path / "check"))
    (tmp_path / job.checkpoint).unlink()
    with pytest.raises(FileNotFoundError, match=r"hgru_bptt_s0\.pth is missing"):
        next(check_checkpoints(job.scale, tmp_path, 78, tmp_path / "check"))
    with pytest.raises(FileNotFoundError, match="--report writes it"):
        next(check_checkpoints(SCALES["paper"], tmp_path, 78, tmp_path / "check"))


def test_unknown_run_is_named(capsys):
    tool = runpy.run_module("tools.pathfinder_study")
    with pytest.raises(SystemExit):
        tool["main"](["--only", "hgru_bppt"])
    assert "'hgru_bppt'" in capsys.readouterr().err


def test_check_with_the_reported_seed_raises():
    tool = runpy.run_module("tools.pathfinder_study")
    with pytest.raises(SystemExit, match="those of seed 41"):
        tool["main"](["--check", "41"])


def test_check_names_scores_that_are_far(tiny, monkeypatch, capsys):
    tool = runpy.run_module("tools.pathfinder_study")
    rows = [Check("a", "PF6s", 6, 0.8, 0.79, 0.02), Check("a", "PF9s", 6, 0.8, 0.7, 0.02)]
    seen = []
    monkeypatch.setitem(tool["check"].__globals__, "check_checkpoints", lambda *args: seen.append(args) or rows)
    with pytest.raises(SystemExit, match="no checkpoint of ff2"):
        rows, kept = [], rows
        tool["main"](["--check", "9", "--only", "ff2"])
    rows = kept
    with pytest.raises(SystemExit, match="1 scores are too far from"):
        tool["main"](["--check", "9", "--only", "ff2"])
    assert seen[0][0] is SCALES["small"] and seen[0][2] == 9 and seen[0][4] == ["ff2"]
    assert capsys.readouterr().out.splitlines() == [
        "a, PF6s at t = 6: 0.790, reported 0.800",
        "a, PF9s at t = 6: 0.700, reported 0.800  more than 0.02 apart",
    ]


@pytest.mark.parametrize("scale", ["small", "paper"])
@pytest.mark.parametrize("name", JOBS)
def test_every_run_has_a_valid_config(name, scale, tmp_path):
    job = study.Job(name, 0, scale, ROOT, tmp_path)
    if not (ROOT / job.config).exists():
        pytest.fail(f"{job.config} is missing")
    cfg = setup(job.arguments())
    check_recurrence_config(cfg)
    assert cfg.SEED == 0 and str(tmp_path) == cfg.OUTPUT_DIR
    assert all(name in DatasetCatalog.list() for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST))


def test_training_and_rate_are_relative_to_the_scale():
    run = Run("hgru_bptt", ("MODEL.RECURRENCE.STEPS", 3), training=0.63, rate=2)
    options = run.all_options(SCALES["small"])
    small = dict(zip(options[::2], options[1::2], strict=True))
    expected = {
        "SOLVER.MAX_ITER": 2520,
        "SOLVER.WARMUP_ITERS": 504,
        "SOLVER.BASE_LR": 0.01,
        "MODEL.RECURRENCE.STEPS": 3,
    }
    assert small.items() >= expected.items()
    options = run.all_options(SCALES["paper"])
    paper = dict(zip(options[::2], options[1::2], strict=True))
    expected = {"SOLVER.MAX_ITER": 17719, "SOLVER.WARMUP_ITERS": 0}
    assert paper.items() >= expected.items() and "SOLVER.BASE_LR" not in paper


@pytest.mark.parametrize("scale", SCALES.values())
def test_learning_rate_of_a_scale_is_that_of_its_configs(scale):
    solver = CfgNode.load_yaml_with_base(str(ROOT / f"{scale.prefix}hgru_bptt.yaml"))["SOLVER"]
    assert solver["BASE_LR"] == scale.learning_rate


def test_recorded_runs_are_not_run_again(tiny, monkeypatch, tmp_path, capsys):
    tool = runpy.run_module("tools.pathfinder_study")
    ran = []
    namespace = tool["main"].__globals__
    monkeypatch.setitem(namespace, "ROOT", tmp_path)
    monkeypatch.setitem(namespace, "run_in_process", lambda job: ran.append((job.name, job.seed)) or True)
    monkeypatch.setitem(namespace, "JOBS", {"p": Run("a"), "a": Run("a", seeds=(0, 1)), "b": Run("b")})
    monkeypatch.setitem(namespace, "PILOTS", ("p",))
    monkeypatch.setitem(namespace, "RUNS", ("a", "b"))
    there = tmp_path / SCALES["small"].folder / "runs/a_s0.json"
    there.parent.mkdir(parents=True)
    there.write_text("{}")
    reports = []
    monkeypatch.setitem(namespace, "write_report", lambda *args: reports.append(args))
    for call in (["--report"], [], ["--only", "a", "--seeds", "0", "3"]):
        tool["main"](call)
    assert ran == [("p", 0), ("b", 0), ("a", 1), ("a", 3)]
    assert reports == [(there.parents[1], tmp_path)] * 3
    assert "1 of 4 runs exist, 3 to run" in capsys.readouterr().out
