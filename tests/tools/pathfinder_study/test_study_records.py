"""Records of the study: read back, and rejected with the invalid file and key."""

import json
import math

import numpy as np
import pytest
from helpers.study_records import RUNS, record, write_records

from tools.pathfinder_study.records import load_study, read_record


def test_records_are_read_and_ordered(tmp_path):
    study = load_study(write_records(tmp_path))
    assert set(study.runs) == set(RUNS) and study.specs == ["PF6s", "PF9s", "PF12s"]
    assert [r.seed for r in study["hgru_bptt"]] == [0, 1, 2] and study["nothing"] == []
    bptt = study.first("hgru_bptt")
    assert bptt.far == 24
    assert bptt.f1("PF6s") == pytest.approx(0.966) and bptt.f1("PF6s", 4) == pytest.approx(0.666)
    assert math.isnan(bptt.f1("PF6s", 17)) and math.isnan(bptt.f1("PF14")) and math.isnan(bptt.best_f1("PF14"))
    assert bptt.best_f1("PF6s") == bptt.f1("PF6s") and bptt.last_residual == 1 and bptt.commit == "0123456789"
    progressive = study.first("hgru_progressive")
    assert progressive.best_f1("PF9s") == progressive.f1("PF9s", 2) > progressive.f1("PF9s")
    assert progressive.last_residual == pytest.approx(0.9**192)
    assert bptt.value("spectral_radius") == pytest.approx(1.2)
    assert np.isnan(bptt.curve["residual"][0]) and bptt.state_space["projection"].shape == (64, 24, 2)
    assert study.mean_f1("hgru_bptt", "PF6s") == pytest.approx(0.97) and math.isnan(study.mean_f1("none", "PF6s"))
    ff = study.first("ff6")
    assert ff.far is None and ff.f1("PF6s") == ff.f1("PF6s", 4) == 0.78 and math.isnan(ff.value("penalty"))
    assert load_study(tmp_path / "none").specs == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps must be a whole number from 1, or null, not 0"),
        ({"parameters": "many"}, "parameters must be a int, not 'many'"),
        ({"quality": {"PF6s": {"steps": [1, 2], "f1": [0.5]}}}, "quality.PF6s.f1 has 1 values, but there are 2 steps"),
        ({"quality": {"PF6s": {"steps": [2, 1], "f1": [0.5, 0.6]}}}, "quality.PF6s.steps must increase"),
        ({"quality": {"PF6s": {"f1": [0.5]}}}, "quality.PF6s has no list 'steps'"),
        ({"probe": {"iteration": [1, 2], "f1": [0.1]}}, "probe.f1 has 1 values, but probe.iteration 2"),
        ({"state_space": {"pooled_at_N": [[1, 2], [3]]}}, "state_space.pooled_at_N must hold numbers"),
        ({"quality": {"PF6s": 3}}, "quality.PF6s must be an object"),
        ({"seconds": {"training": "long"}}, "seconds.training must hold numbers"),
    ],
)
def test_broken_record_raises_with_file_and_key(tmp_path, change, message):
    path = tmp_path / "broken.json"
    path.write_text(json.dumps(record("hgru_bptt") | change))
    with pytest.raises(ValueError) as error:
        read_record(path)
    assert str(path) in str(error.value) and message in str(error.value)


def test_file_without_a_record_raises(tmp_path):
    path = tmp_path / "x.json"
    for text, message in (("{", "not valid JSON"), ("[]", "JSON object"), ("{}", "run must be a str, not None")):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_record(path)


def test_duplicate_run_raises(tmp_path):
    write_records(tmp_path, ["ff2"])
    (tmp_path / "copy.json").write_text(json.dumps(record("ff2")))
    with pytest.raises(ValueError, match=r"copy.json.* duplicates of ff2"):
        load_study(tmp_path)
