"""Results of panoptic models are kept and read back, and their pictures are put side by side."""

import json

import cv2
import numpy as np
import pytest

from crbp_d2.evaluation.drawing import title
from crbp_d2.evaluation.per_step.report import HEADINGS, steps_csv
from tools.page import machine
from tools.pathfinder_study import collect
from tools.pathfinder_study.panoptic_results import (
    RESULTS,
    collect_results,
    read_results,
    read_steps,
    side_by_side,
    write_side_by_side,
)


def test_steps_are_read_back(tmp_path):
    generator = np.random.default_rng(0)
    columns = {name: generator.uniform(0, 100, 4).round(4) for name in HEADINGS} | {"t": np.array([1, 2, 5, 10])}
    columns["AP"][1] = np.nan
    (tmp_path / "x.csv").write_text(steps_csv(columns))
    found = read_steps(tmp_path / "x.csv")
    assert set(found) == set(columns) and all(np.array_equal(found[k], columns[k], equal_nan=True) for k in columns)
    (tmp_path / "x.csv").write_text("t,PQ\n1,2\n")
    with pytest.raises(ValueError, match="x.csv has no column 'SQ'"):
        read_steps(tmp_path / "x.csv")


def test_results_are_kept_with_their_machine(tmp_path):
    evaluation, folder = tmp_path / "inference", tmp_path / "tools/pathfinder_study/results/panoptic_toy"
    assert read_results(folder) is None
    evaluation.mkdir()
    metrics = {"PQ": 1.5, "PQ_th": 2, "PQ_st": 3, "PQ@5": 4}
    (evaluation / "results.json").write_text(json.dumps({"panoptic_seg": metrics, "segm": {"AP": None}}))
    collect_results(evaluation, folder)
    assert read_results(folder) == ({"PQ": 1.5, "PQ things": 2, "PQ stuff": 3}, machine())
    assert [path.name for path in folder.iterdir()] == ["results.json"]
    (evaluation / "quality_per_step.csv").write_text("t\n")
    collect_results(evaluation, folder)
    assert (folder / "quality_per_step.csv").read_text() == "t\n"
    (evaluation / "quality_per_step.csv").unlink()
    collect_results(evaluation, folder)
    assert [path.name for path in folder.iterdir()] == ["results.json"]
    (folder / "results.json").write_text('{"panoptic_seg": {"PQ": null}, "machine": ""}')
    with pytest.raises(ValueError, match="results.json has no valid"):
        read_results(folder)


def picture(prediction):
    """As PanopticPictures writes them: input 10, truth 20, prediction."""
    panels = [np.full((60, 80, 3), value, np.uint8) for value in (10, 20, prediction)]
    return np.concatenate([title(panel, name) for panel, name in zip(panels, "abc", strict=True)], axis=1)


def test_predictions_of_two_models_side_by_side(tmp_path):
    joined = side_by_side(picture(30), picture(40), ("feedforward", "recurrent"))
    assert joined.shape == (94, 320, 3)
    assert [joined[70, 80 * k + 40, 0] for k in range(4)] == [10, 20, 30, 40]
    assert (joined[:34, 160:240] != joined[:34, 240:]).any()  # their titles
    with pytest.raises(ValueError, match="one size"):
        side_by_side(picture(30), picture(30)[:-1], ("a", "b"))
    for name, value, files in (("left", 30, "ab"), ("right", 40, "bc")):
        (tmp_path / name).mkdir()
        for file in files:
            cv2.imwrite(str(tmp_path / name / f"{file}.png"), picture(value))
    (tmp_path / "joined").mkdir()
    (tmp_path / "joined/old.jpg").write_text("")
    (path,) = write_side_by_side({"ff": tmp_path / "left", "rec": tmp_path / "right"}, tmp_path / "joined")
    assert [*(tmp_path / "joined").iterdir()] == [path] and path.name == "b.jpg"
    assert [cv2.imread(str(path))[70, 80 * k + 40, 0] for k in (2, 3)] == [30, 40]


def test_wide_pictures_are_kept_smaller(tmp_path):
    wide = np.concatenate([np.full((60, 800, 3), value, np.uint8) for value in (10, 20, 30)], axis=1)
    for name in ("left", "right"):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / "a.png"), wide)
    (path,) = write_side_by_side({"a": tmp_path / "left", "b": tmp_path / "right"}, tmp_path / "joined")
    assert cv2.imread(str(path)).shape == (22, 1200, 3)


def test_tool_keeps_results_of_evaluations(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(collect, "ROOT", tmp_path)
    for name, quality in (("toy", 80), ("base", 70)):
        evaluation = tmp_path / name / "inference/toy_panoptic_val"
        (evaluation / "pictures").mkdir(parents=True)
        content = {"panoptic_seg": {"PQ": quality, "PQ_th": 2, "PQ_st": 3}}
        (evaluation / "results.json").write_text(json.dumps(content))
        cv2.imwrite(str(evaluation / "pictures/a.png"), picture(quality))
    collect.main(["--toy", str(tmp_path / "toy"), "--baseline", str(tmp_path / "base")])
    results = tmp_path / RESULTS
    assert read_results(results / "panoptic_toy")[0]["PQ"] == 80
    assert read_results(results / "panoptic_toy_baseline")[0]["PQ"] == 70
    joined = cv2.imread(str(results / "panoptic_toy/side_by_side/a.jpg"))
    assert [joined[70, 80 * k + 40, 0] for k in (2, 3)] == [70, 80]
    assert "1 pictures side by side" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="coco_2017_val_panoptic_separated/res"):
        collect.main(["--two-images", str(tmp_path / "toy")])
    with pytest.raises(SystemExit):
        collect.main([])
