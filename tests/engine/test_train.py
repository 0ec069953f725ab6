"""tools/train_net.py on a handful of toy scenes: training, evaluation, invalid input."""

import json
from pathlib import Path

import pytest
from detectron2.data import MetadataCatalog
from helpers.paths import ROOT
from helpers.programs import tool

from crbp_d2.data import register_toy_panoptic
from tools.data_sets import free

TOY = "quick/panoptic_R18_crbp_toy.yaml"
TINY = ["SOLVER.IMS_PER_BATCH", 2, "DATALOADER.NUM_WORKERS", 0, "MODEL.RPN.POST_NMS_TOPK_TEST", 5,
        "SOLVER.WARMUP_ITERS", 0, "TEST.PICTURES", 1]  # fmt: skip
# Those of this file, or of another test in the same process.
TOY_SCENES = "toy_panoptic_train", "toy_panoptic_val", "toy_panoptic_val_as_files"


@pytest.fixture(scope="module", autouse=True)
def toy_scenes(tmp_path_factory):
    free(*TOY_SCENES)
    root = tmp_path_factory.mktemp("datasets")
    register_toy_panoptic(str(root), num_train=4, num_val=2)
    yield
    free(*TOY_SCENES)


def train_net(config, *arguments):
    tool("train_net", "--config-file", ROOT / "configs" / config, *arguments)


def test_train_and_evaluate(tmp_path):
    options = [*TINY, "OUTPUT_DIR", tmp_path]
    train_net(TOY, *options, "SOLVER.MAX_ITER", 2)
    lines = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    latest = [line for line in lines if "recurrence/residual" in line][-1]
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
    train_net(TOY, "--eval-only", *options, "MODEL.WEIGHTS", tmp_path / "model_final.pth")
    assert json.loads((inference / "results.json").read_text()) == in_training


def test_quality_per_step_and_early_stop(tmp_path):
    options = ["--eval-only", "--untrained", *TINY, "OUTPUT_DIR", tmp_path, "SEED", 1]
    inference = tmp_path / "inference/toy_panoptic_val"
    train_net(TOY, *options, "TEST.STEPS_TO_EVALUATE", "(2, 10)")
    results = json.loads((inference / "results.json").read_text())
    panoptic = results["panoptic_seg"]
    assert {"PQ@2", "SQ@10", "RQ_th", "PQ_th@2", "PQ_st@10"} < set(panoptic) and "AP@2" in results["segm"]
    assert [panoptic["PQ_st@10"], results["segm"]["AP@10"]] == [panoptic["PQ_st"], results["segm"]["AP"]]
    assert (inference / "quality_per_step.csv").exists() and (inference / "quality_per_step.png").exists()
    assert "recurrence" not in results
    log = (tmp_path / "log.txt").read_text()
    assert "|   t | PQ" in log or "| t   | PQ" in log

    train_net(TOY, *options, "MODEL.RECURRENCE.EARLY_STOP.ENABLED", True,
              "MODEL.RECURRENCE.EARLY_STOP.TOL", 0.3)  # fmt: skip
    results = json.loads((inference / "results.json").read_text())
    assert 1 < results["recurrence"]["mean_steps"] < 10
    assert (
        f"Early exit at a residual of 0.3: mean of {results['recurrence']['mean_steps']:.2f} steps"
        in (tmp_path / "log.txt").read_text()
    )


def refusal(*arguments):
    with pytest.raises(SystemExit) as stopped:
        train_net(*arguments)
    return str(stopped.value)


@pytest.mark.usefixtures("nothing_is_built")
def test_missing_inputs_fail_early(tmp_path, monkeypatch):
    output = ["OUTPUT_DIR", tmp_path]
    for name in ("train", "val"):  # also where COCO is there
        metadata = MetadataCatalog.get(f"coco_2017_{name}_panoptic_separated")
        elsewhere = str(tmp_path / "coco/annotations" / Path(metadata.panoptic_json).name)
        monkeypatch.setitem(metadata.__dict__, "panoptic_json", elsewhere)
    message = refusal("panoptic_R50_crbp.yaml", *output)
    assert "coco_2017_train_panoptic_separated is missing" in message
    assert "panoptic_train2017.json" in message and "DETECTRON2_DATASETS" in message and "make demo" in message
    assert "\n" not in message

    message = refusal(TOY, *output, "MODEL.WEIGHTS", tmp_path / "nothing.pkl")
    assert f"MODEL.WEIGHTS = '{tmp_path}/nothing.pkl' are missing" in message and "make demo" in message
    message = refusal("nothing.yaml", *output)
    assert "nothing.yaml" in message
    message = refusal(TOY, "--eval-only", *output, "MODEL.WEIGHTS", tmp_path / "nothing.pkl")
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
def test_invalid_settings_fail_early(tmp_path, options, expected):
    assert expected in refusal(TOY, *options, "OUTPUT_DIR", tmp_path)


def test_weights_that_cannot_be_downloaded(monkeypatch, tmp_path):
    from detectron2.utils.file_io import PathManager

    from crbp_d2.checkpoint.loading import check_weights

    def no_network(path, *args, **kwargs):
        raise OSError("<urlopen error no network>")

    monkeypatch.setattr(PathManager, "get_local_path", no_network)
    with pytest.raises(FileNotFoundError, match="R-50.pkl.*no network.*make demo"):
        check_weights("detectron2://ImageNetPretrained/MSRA/R-50.pkl")
