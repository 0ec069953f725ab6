"""tools/train_net.py on a handful of toy scenes: training, resuming, evaluating, refusing."""

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.engine import DefaultTrainer
from helpers.paths import ROOT

from crbp_d2.data import register_toy_panoptic
from tools.data_sets import free

TOY = "quick/panoptic_R18_crbp_toy.yaml"
TINY = ["SOLVER.IMS_PER_BATCH", 2, "DATALOADER.NUM_WORKERS", 0, "MODEL.RPN.POST_NMS_TOPK_TEST", 5,
        "SOLVER.WARMUP_ITERS", 0, "SOLVER.CHECKPOINT_PERIOD", 2, "TEST.PICTURES", 1]  # fmt: skip
# Those of this file, or of another test in the same process.
TOY_SCENES = "toy_panoptic_train", "toy_panoptic_val", "toy_panoptic_val_as_files"


@pytest.fixture(scope="module", autouse=True)
def toy_scenes(tmp_path_factory):
    free(*TOY_SCENES)
    root = tmp_path_factory.mktemp("datasets")
    register_toy_panoptic(str(root), num_train=4, num_val=2)
    yield
    free(*TOY_SCENES)


def train_net(monkeypatch, config, *arguments):
    """Run the tool in this process, where the small toy set is registered."""
    command = ["train_net.py", "--config-file", str(ROOT / "configs" / config), *map(str, arguments)]
    monkeypatch.setattr(sys, "argv", command)
    runpy.run_path(str(ROOT / "tools/train_net.py"), run_name="__main__")


def scalars(folder):
    return [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]


def test_train_resume_evaluate(tmp_path, monkeypatch):
    options = [*TINY, "OUTPUT_DIR", tmp_path]

    class Killed(Exception):
        pass

    after_step = DefaultTrainer.after_step

    def killed_in_the_fourth(self):
        after_step(self)
        if self.iter == 3:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(DefaultTrainer, "after_step", killed_in_the_fourth)
        with pytest.raises(Killed):
            train_net(monkeypatch, TOY, *options, "SOLVER.MAX_ITER", 6)
    assert not (tmp_path / "model_final.pth").exists()
    last = (tmp_path / "last_checkpoint").read_text()
    stopped_at = torch.load(tmp_path / last, weights_only=True)["iteration"]
    assert stopped_at in (1, 3)

    steps = []

    def counted(self):
        steps.append(self.iter)
        after_step(self)

    with monkeypatch.context() as patch:
        patch.setattr(DefaultTrainer, "after_step", counted)
        train_net(monkeypatch, TOY, "--resume", *options, "SOLVER.MAX_ITER", 6)
    assert steps == list(range(stopped_at + 1, 6))

    latest = [line for line in scalars(tmp_path) if "recurrence/residual" in line][-1]
    assert latest["recurrence/steps"] == 10
    assert 0 < latest["recurrence/series_terms"] <= 10
    for name in ("residual", "growth_events", "lipschitz", "series_ratio", "unconverged"):
        assert f"recurrence/{name}" in latest
    assert latest["loss_lipschitz"] == pytest.approx(0.001 * latest["recurrence/lipschitz"], rel=0.5)

    inference = tmp_path / "inference/toy_panoptic_val"
    in_training = json.loads((inference / "results.json").read_text())
    assert {"panoptic_seg", "bbox", "segm", "sem_seg"} == set(in_training)
    assert len(list((inference / "pictures").iterdir())) == 1
    (inference / "results.json").unlink()
    train_net(monkeypatch, TOY, "--eval-only", *options, "MODEL.WEIGHTS", tmp_path / "model_final.pth")
    assert json.loads((inference / "results.json").read_text()) == in_training


def test_quality_per_step_and_early_stop(tmp_path, monkeypatch):
    options = ["--eval-only", "--untrained", *TINY, "OUTPUT_DIR", tmp_path, "SEED", 1]
    inference = tmp_path / "inference/toy_panoptic_val"
    train_net(monkeypatch, TOY, *options, "TEST.STEPS_TO_EVALUATE", "(2, 10)")
    results = json.loads((inference / "results.json").read_text())
    panoptic = results["panoptic_seg"]
    assert {"PQ@2", "SQ@10", "RQ_th", "PQ_th@2", "PQ_st@10"} < set(panoptic) and "AP@2" in results["segm"]
    assert [panoptic["PQ_st@10"], results["segm"]["AP@10"]] == [panoptic["PQ_st"], results["segm"]["AP"]]
    assert (inference / "quality_per_step.csv").exists() and (inference / "quality_per_step.png").exists()
    assert "recurrence" not in results
    log = (tmp_path / "log.txt").read_text()
    assert "|   t | PQ" in log or "| t   | PQ" in log

    train_net(monkeypatch, TOY, *options, "MODEL.RECURRENCE.EARLY_STOP.ENABLED", True,
              "MODEL.RECURRENCE.EARLY_STOP.TOL", 0.3)  # fmt: skip
    results = json.loads((inference / "results.json").read_text())
    assert 1 < results["recurrence"]["mean_steps"] < 10
    assert (
        f"Early exit at a residual of 0.3: mean of {results['recurrence']['mean_steps']:.2f} steps"
        in (tmp_path / "log.txt").read_text()
    )


def refusal(monkeypatch, *arguments):
    with pytest.raises(SystemExit) as stopped:
        train_net(monkeypatch, *arguments)
    return str(stopped.value)


@pytest.mark.usefixtures("nothing_is_built")
def test_missing_inputs_are_said_in_one_sentence_before_anything_is_built(tmp_path, monkeypatch):
    output = ["OUTPUT_DIR", tmp_path]
    for name in ("train", "val"):  # also where COCO is there
        metadata = MetadataCatalog.get(f"coco_2017_{name}_panoptic_separated")
        elsewhere = str(tmp_path / "coco/annotations" / Path(metadata.panoptic_json).name)
        monkeypatch.setitem(metadata.__dict__, "panoptic_json", elsewhere)
    message = refusal(monkeypatch, "panoptic_R50_crbp.yaml", *output)
    assert "coco_2017_train_panoptic_separated is missing" in message
    assert "panoptic_train2017.json" in message and "DETECTRON2_DATASETS" in message and "make demo" in message
    assert "\n" not in message

    message = refusal(monkeypatch, TOY, *output, "MODEL.WEIGHTS", tmp_path / "nothing.pkl")
    assert f"MODEL.WEIGHTS = '{tmp_path}/nothing.pkl' are missing" in message and "make demo" in message
    message = refusal(monkeypatch, "nothing.yaml", *output)
    assert "nothing.yaml" in message
    message = refusal(monkeypatch, TOY, "--eval-only", *output, "MODEL.WEIGHTS", tmp_path / "nothing.pkl")
    assert "nothing.pkl" in message


@pytest.mark.usefixtures("nothing_is_built")
@pytest.mark.parametrize(
    "options,expected",
    [
        (["MODEL.RECURRENCE.RULE", "crpb"], "MODEL.RECURRENCE.RULE is 'crpb'; allowed: bptt"),
        (["MODEL.RECURRENCE.STEP", 5], "MODEL.RECURRENCE.STEP"),
        (["MODEL.ROI_HEADS.NUM_CLASSES", 80], "MODEL.ROI_HEADS.NUM_CLASSES is 80, but the data set toy_panoptic_train"),
        (["DATASETS.TEST", "('toy',)"], "no data set is named 'toy'"),
        (["TEST.STEPS_TO_EVALUATE", "(3,)", "MODEL.RECURRENCE.EARLY_STOP.ENABLED", True], "EARLY_STOP.ENABLED is True"),
        (
            ["MODEL.RECURRENCE.EARLY_STOP.ENABLED", True, "MODEL.RECURRENCE.CELL.NORM", "BN"],
            "EARLY_STOP.ENABLED is True, but MODEL.RECURRENCE.CELL.NORM is 'BN'",
        ),
    ],
)
def test_bad_settings_are_refused_before_anything_is_built(tmp_path, monkeypatch, options, expected):
    assert expected in refusal(monkeypatch, TOY, *options, "OUTPUT_DIR", tmp_path)


def test_weights_that_cannot_be_downloaded(monkeypatch, tmp_path):
    from detectron2.utils.file_io import PathManager

    from crbp_d2.checkpoint.loading import check_weights

    def no_network(path, *args, **kwargs):
        raise OSError("<urlopen error no network>")

    monkeypatch.setattr(PathManager, "get_local_path", no_network)
    with pytest.raises(FileNotFoundError, match="detectron2://ImageNetPretrained.*no network.*make demo"):
        check_weights("detectron2://ImageNetPretrained/MSRA/R-50.pkl")


def test_without_a_test_set_it_trains_and_ends_well(tmp_path, monkeypatch):
    train_net(monkeypatch, TOY, *TINY, "SOLVER.MAX_ITER", 1, "DATASETS.TEST", "()", "OUTPUT_DIR", tmp_path)
    assert (tmp_path / "model_final.pth").exists() and not (tmp_path / "inference").exists()
