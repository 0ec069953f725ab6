"""Pathfinder scores against set arithmetic, their table and the pictures."""

import math

import cv2
import numpy as np
import pytest
import torch
from detectron2.utils import comm

from crbp_d2.evaluation import PathfinderEvaluator, PathfinderPictures, pathfinder_table
from crbp_d2.evaluation.pathfinder import SCORES, scores

NAME = "pathfinder_PF6s_val"


def record_of(target, image_id=0):
    image = torch.zeros(1, *target.shape, dtype=torch.uint8)
    return {"image": image, "sem_seg": target, "image_id": image_id, "height": len(target), "width": len(target[0])}


def logits_of(found):
    return torch.stack([torch.where(found, -1.0, 1.0), torch.where(found, 1.0, -1.0)])


def by_sets(found, target):
    pixels = {(r, c) for r in range(len(target)) for c in range(len(target[0])) if target[r, c] != 255}
    a, b = ({p for p in pixels if m[p] == 1} for m in (found, target))
    precision, recall = len(a & b) / len(a), len(a & b) / len(b)
    correct_background = len(pixels - a - b) / len(pixels - b)
    return {"precision": precision, "recall": recall, "F1": 2 * precision * recall / (precision + recall),
            "IoU": len(a & b) / len(a | b), "balanced_accuracy": (recall + correct_background) / 2}  # fmt: skip


@pytest.fixture
def cases():
    generator = torch.Generator().manual_seed(0)
    targets = [(torch.rand(9, 11, generator=generator) < fraction).long() for fraction in (0.1, 0.4, 0.3)]
    targets[1][2:4] = 255
    founds = [(torch.rand(9, 11, generator=generator) < fraction) for fraction in (0.3, 0.5, 0.1)]
    return targets, founds


def test_scores_per_image_and_pooled(cases):
    targets, founds = cases
    evaluator = PathfinderEvaluator(NAME)
    evaluator.process(
        [record_of(t, k) for k, t in enumerate(targets[:2])], [{"sem_seg": logits_of(f)} for f in founds[:2]]
    )
    evaluator.process([record_of(targets[2], 2)], [{"sem_seg": logits_of(founds[2])}])
    found = evaluator.evaluate()["pathfinder"]
    each = [by_sets(f, t) for f, t in zip(founds, targets, strict=True)]
    pooled = by_sets(torch.cat(founds), torch.cat(targets))
    assert set(found) == {*SCORES, *(f"{name}_pooled" for name in SCORES)}
    for name in SCORES:
        assert found[name] == pytest.approx(np.mean([one[name] for one in each]), abs=1e-12)
        assert found[f"{name}_pooled"] == pytest.approx(pooled[name], abs=1e-12)
    evaluator.reset()
    with pytest.raises(ValueError, match="no image was evaluated"):
        evaluator.evaluate()


def test_scores_after_several_steps(cases):
    targets, founds = cases
    evaluator = PathfinderEvaluator(NAME)
    outputs = [{"sem_seg": logits_of(f), "sem_seg_by_step": {4: logits_of(f), 9: logits_of(t == 1)}}
               for f, t in zip(founds, targets, strict=True)]  # fmt: skip
    evaluator.process([record_of(t, k) for k, t in enumerate(targets)], outputs)
    found = evaluator.evaluate()["pathfinder"]
    assert all(found[name] == found[f"{name}@4"] < 1 for name in SCORES)
    assert all(found[f"{name}@9"] == found[f"{name}_pooled@9"] == 1 for name in SCORES)


@pytest.mark.parametrize(
    "counts,expected",
    [
        ((0, 0, 0, 9), {"F1": 1, "IoU": 1, "precision": 1, "recall": 1, "balanced_accuracy": 1}),
        ((0, 3, 0, 6), {"F1": 0, "IoU": 0, "precision": 0, "recall": 0, "balanced_accuracy": 1 / 3}),
        ((0, 0, 3, 6), {"F1": 0, "IoU": 0, "precision": 0, "recall": 0, "balanced_accuracy": 1 / 2}),
        ((9, 0, 0, 0), {"F1": 1, "IoU": 1, "precision": 1, "recall": 1, "balanced_accuracy": 1 / 2}),
    ],
)
def test_scores_where_there_is_nothing(counts, expected):
    found = scores(np.array([counts]))
    assert {name: value.item() for name, value in found.items()} == pytest.approx(expected)


def test_truth_is_read_where_the_input_has_none():
    from crbp_d2.data import generate_pathfinder
    from crbp_d2.data.pathfinder.spec import SPECS

    record = {"stimulus": (SPECS["PF6s"], (0, 2), 5), "image_id": 5, "height": 48, "width": 48}
    mask = generate_pathfinder("PF6s", 1, seed=(0, 2), first=5)[1][0]
    evaluator = PathfinderEvaluator(NAME)
    evaluator.process([record], [{"sem_seg": logits_of(torch.from_numpy(mask) == 1)}])
    assert evaluator.evaluate()["pathfinder"]["F1"] == 1


def test_what_cannot_be_scored_is_refused(cases):
    (target, *_), (found, *_) = cases
    evaluator = PathfinderEvaluator(NAME)
    with pytest.raises(ValueError, match=r"\(8, 11\), but its target \(9, 11\)"):
        evaluator.process([record_of(target)], [{"sem_seg": logits_of(found[1:])}])
    with pytest.raises(FloatingPointError, match="a prediction is not finite"):
        evaluator.process([record_of(target)], [{"sem_seg": logits_of(found) * math.nan}])


def test_processes_are_gathered_and_an_image_counts_once(cases, monkeypatch):
    targets, founds = cases
    parts = []
    for indices in ((0, 1), (1, 2)):  # image 1 was given to both
        evaluator = PathfinderEvaluator(NAME)
        evaluator.process(
            [record_of(targets[k], k) for k in indices], [{"sem_seg": logits_of(founds[k])} for k in indices]
        )
        parts.append(evaluator._counts)
    monkeypatch.setattr(comm, "gather", lambda mine: parts)
    found = evaluator.evaluate()["pathfinder"]
    assert found["F1"] == pytest.approx(np.mean([by_sets(f, t)["F1"] for f, t in zip(founds, targets, strict=True)]))
    monkeypatch.setattr(comm, "is_main_process", lambda: False)
    assert evaluator.evaluate() is None


def test_table_has_a_row_for_every_set_and_step_count():
    def values(f1, suffix=""):
        return {f"{name}{pooled}{suffix}": f1 for name in SCORES for pooled in ("", "_pooled")}

    results = {"a": {"pathfinder": values(0.5) | values(0.5, "@12") | values(0.25, "@24")},
               "b": {"pathfinder": values(0.125)}}  # fmt: skip

    def rows(*arguments):
        lines = pathfinder_table(*arguments).splitlines()
        return [[cell.strip() for cell in line.split("|")[1:-1]][:3] for line in (lines[0], *lines[2:])]

    assert rows(results, 12) == [["", "t", "F1"], ["a", "12", "0.500"], ["a", "24", "0.250"], ["b", "12", "0.125"]]
    assert rows({"b": results["b"]}, None)[1:] == [["b", "-", "0.125"]]


def test_pictures_show_stimulus_target_and_each_prediction(tmp_path):
    target = torch.zeros(20, 20, dtype=torch.long)
    target[4:8, 4:8] = 1
    record = record_of(target, image_id=3)
    record["image"][0, 15:] = 255
    empty, full = logits_of(target > 1) * 20, logits_of(target == 1) * 20
    pictures = PathfinderPictures(str(tmp_path / "pictures"), count=1, steps=4)
    pictures.process([record, record_of(target, 4)], [{"sem_seg": empty, "sem_seg_by_step": {4: empty, 9: full}}] * 2)
    assert pictures.evaluate() == {}
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == ["000003.png"]
    picture = cv2.imread(str(tmp_path / "pictures/000003.png"))[..., ::-1]
    side = picture.shape[1] // 4
    panels = [picture[-side:, k * side : (k + 1) * side] for k in range(4)]
    inside, bar = (slice(side * 5 // 20, side * 7 // 20),) * 2, (slice(side * 16 // 20, side * 19 // 20), side // 2)
    assert [panel[inside].mean() for panel in panels[:3]] == [0, 255, 0]
    assert panels[3][inside].reshape(-1, 3).mean(axis=0) == pytest.approx([255, 140, 0], abs=1)
    assert panels[0][bar].mean() == 255 and panels[1][bar].mean() == 0 and 80 < panels[2][bar].mean() < 150
