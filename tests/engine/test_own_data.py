"""Data sets, dry runs and misspelt names from the command line."""

import json
import logging
import shutil

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from helpers import panoptic_set
from helpers.paths import ROOT
from helpers.programs import tool
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from crbp_d2.data import write_instances_json
from crbp_d2.engine.run import main

TOY = ["--config-file", str(ROOT / "configs/quick/panoptic_R18_crbp_toy.yaml")]
TINY = ["SOLVER.IMS_PER_BATCH", "2", "SOLVER.MAX_ITER", "1", "DATALOADER.NUM_WORKERS", "0", "MODEL.DEVICE", "cpu",
        "MODEL.RECURRENCE.STEPS", "2", "INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MIN_SIZE_TEST", "64", "TEST.PICTURES",
        "0", "MODEL.RPN.POST_NMS_TOPK_TEST", "5"]  # fmt: skip


@pytest.fixture
def own(tmp_path):
    """Folder of a set in own form; forgets what a test registers."""
    panoptic_set.write_set(tmp_path)
    before = set(DatasetCatalog.list())
    yield tmp_path
    for name in set(DatasetCatalog.list()) - before:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def panoptic(root, name):
    return ["--register", name, str(root / "panoptic.json"), str(root / "panoptic"), str(root / "images")]


def test_registered_data_decide_sets_and_class_counts(own):
    main([*TOY, *panoptic(own, "own_train"), *panoptic(own, "own_val"), "OUTPUT_DIR", str(own / "run"), *TINY])
    assert (own / "run/inference/own_val/results.json").exists() and not (own / "run/inference/own_train").exists()
    log = (own / "run/log.txt").read_text()
    for key, value in (("ROI_HEADS.NUM_CLASSES", 2), ("SEM_SEG_HEAD.NUM_CLASSES", 3)):
        assert f"MODEL.{key} is {value}: " in log
    assert json.loads((own / "run/metadata.json").read_text())["thing_classes"] == ["cat", "dog"]
    events = EventAccumulator(str(own / "run"))
    events.Reload()
    results = json.loads((own / "run/inference/own_val/results.json").read_text())["panoptic_seg"]
    for name in ("cat", "dog", "sea", "sky"):
        (event,) = events.Scalars(f"panoptic_seg/PQ-{name}")
        assert event.value == pytest.approx(results[f"PQ-{name}"])


def test_keys_on_the_command_line_win(own):
    with pytest.raises(SystemExit, match="MODEL.ROI_HEADS.NUM_CLASSES is 7"):
        main([*TOY, *panoptic(own, "own_set"), "OUTPUT_DIR", str(own / "run"), "MODEL.ROI_HEADS.NUM_CLASSES", "7"])


@pytest.mark.parametrize("change", [
    lambda d: d["categories"][0].update(name="dog") or d["categories"][2].update(name="cat"),
    lambda d: d["categories"][0].update(name="horse"),
    lambda d: d["categories"].append({"id": 40, "name": "hill", "isthing": 0}),
    lambda d: d["categories"][0].update(isthing=0),
])  # fmt: skip
def test_sets_with_different_classes_are_rejected(own, tmp_path_factory, change):
    """A cat of one set would count as a dog of the other."""
    other = tmp_path_factory.mktemp("other")
    shutil.copytree(own, other, dirs_exist_ok=True)
    content = json.loads((other / "panoptic.json").read_text())
    change(content)
    (other / "panoptic.json").write_text(json.dumps(content))
    sets = [*panoptic(own, "own_train"), *panoptic(other, "own_val")]
    with pytest.raises(SystemExit) as stopped:
        main([*TOY, *sets, "OUTPUT_DIR", str(own / "run"), *TINY])
    message = str(stopped.value)
    assert "own_val" in message and "\n" not in message and not (own / "run").exists()


def test_instances_in_cocos_format_train_a_model_without_stuff(own):
    panoptic_set.register(own, "own_source")
    write_instances_json("own_source", str(own / "instances.json"))
    named = ["--register-coco", "own_coco", str(own / "instances.json"), str(own / "images")]
    main([*TOY, *named, "OUTPUT_DIR", str(own / "run"), *TINY])
    assert set(json.loads((own / "run/inference/own_coco/results.json").read_text())) == {"bbox", "segm"}
    assert "META_ARCHITECTURE is 'GeneralizedRCNN'" in (own / "run/log.txt").read_text()


def test_a_dry_run_keeps_nothing(own, caplog):
    before = set(own.iterdir())
    logger = logging.getLogger("crbp_d2")
    # detectron2 keeps its loggers' records from the root's handlers.
    logger.addHandler(caplog.handler)
    try:
        figures = main([*TOY, "--dry-run", *panoptic(own, "own_set"), "OUTPUT_DIR", str(own / "run"), *TINY,
                        "SOLVER.MAX_ITER", "600"])  # fmt: skip
    finally:
        logger.removeHandler(caplog.handler)
    assert set(own.iterdir()) == before
    assert figures["peak_memory"] > 2**20 and figures["time_left"] == pytest.approx(600 * figures["seconds"])
    assert "2 thing and 2 stuff classes" in caplog.text and "600 iterations" in caplog.text


def test_a_dry_run_counts_the_iterations_of_fewer_processes(tmp_path):
    arguments = ["--config-file", str(ROOT / "configs/quick/pathfinder_hgru_crbp_instant_test.yaml"), "--dry-run",
                 "MODEL.DEVICE", "cpu", "SOLVER.MAX_ITER", "600", "SOLVER.REFERENCE_WORLD_SIZE", "2",
                 "DATASETS.TEST", "()", "OUTPUT_DIR", str(tmp_path)]  # fmt: skip
    figures = main(arguments)
    assert figures["time_left"] == pytest.approx(1200 * figures["seconds"])


@pytest.mark.parametrize("instances", [False, True])
def test_a_dry_run_looks_into_every_file(own, instances):
    data = panoptic(own, "own_set")
    if instances:
        panoptic_set.register(own, "own_panoptic")
        write_instances_json("own_panoptic", str(own / "a.json"))
        data = ["--register-coco", "own_set", str(own / "a.json"), str(own / "images")]
    damaged = own / ("images/002.png" if instances else "panoptic/002.png")
    damaged.write_bytes(damaged.read_bytes()[:60])
    with pytest.raises(SystemExit, match="002.png"):
        main([*TOY, "--dry-run", *data, "OUTPUT_DIR", str(own / "run"), *TINY])


def test_a_dry_run_resumes_and_leaves_the_checkpoint(own, monkeypatch, capfd):
    monkeypatch.chdir(own)
    data = [*TOY, *panoptic(own, "own_set"), *TINY, "DATASETS.TEST", "()", "OUTPUT_DIR", "run"]
    tool("train_net", *data)

    def files():
        # The log of the training is still open in this process.
        found = [path for path in (own / "run").rglob("*") if path.is_file() and path.name != "log.txt"]
        return {path: path.read_bytes() for path in found}

    before = files()
    figures = main(["--dry-run", "--resume", *map(str, data), "SOLVER.MAX_ITER", "41"])
    assert figures["time_left"] == pytest.approx(40 * figures["seconds"])
    assert files() == before
    with pytest.raises(SystemExit, match="--dry-run.*--eval-only"):
        tool("train_net", "--dry-run", "--eval-only", "--untrained", *data)


def test_a_flag_behind_the_keys_is_called_that(tmp_path):
    with pytest.raises(SystemExit, match="^train_net.py: --dry-run must precede"):
        tool("train_net", *TOY, "MODEL.DEVICE", "cpu", "--dry-run", "OUTPUT_DIR", tmp_path / "run")


@pytest.mark.parametrize(
    "arguments,meant",
    [
        (["MODEL.RECURRENCE.STEP", "3"], "MODEL.RECURRENCE.STEPS"),
        (["MODEL.RECURENCE.RULE", "crbp"], "MODEL.RECURRENCE.RULE"),
        (["DATASETS.TRAIN", "('toy_panoptic_trian',)"], "toy_panoptic_train"),
        (["MODEL.RECURRENCE.RULE", "crpb"], "crbp"),
        (["MODEL.RECURRENCE.CELL.NAME", "HGRUCel"], "HGRUCell"),
        (["MODEL.ROI_MASK_HEAD.NAME", "RecurentMaskHead"], "RecurrentMaskHead"),
        (["MODEL.SEM_SEG_HEAD.NAME", "RecurrentSemSegHed"], "RecurrentSemSegHead"),
        (["MODEL.RECURRENCE.SOLVER.NAME", "Andersen"], "Anderson"),
        (["MODEL.RECURRENCE.PENALTY.NAME", "Lipshitz"], "Lipschitz"),
        (["MODEL.RECURRENCE.CELL.CONVOLUTION", "dirct"], "direct"),
        (["--eval-only", "--untrained", "DATASETS.TEST", "('toy_panoptic_vall',)"], "toy_panoptic_val"),
    ],
)
def test_a_misspelt_name_is_answered_with_the_nearest_one(tmp_path, monkeypatch, arguments, meant):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        tool("train_net", *TOY, *arguments, "MODEL.DEVICE", "cpu", "OUTPUT_DIR", "run")
    message = str(stopped.value)
    assert f"did you mean '{meant}'" in message and "\n" not in message and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "content,meant",
    [
        ("MODEL: {RECURRENCE: {STEP: 3}}", "MODEL.RECURRENCE.STEPS"),
        (f"_BASE_: {TOY[1]}\nMODEL: {{RECURRENCE: {{RULE: crpb}}}}", "crbp"),
        (f"_BASE_: {TOY[1]}\nSOLVER: {{MAX_ITERS: 3}}", "SOLVER.MAX_ITER"),
    ],
)
def test_a_misspelt_key_or_value_of_a_file_too(tmp_path, content, meant):
    (tmp_path / "own.yaml").write_text(content)
    with pytest.raises(SystemExit, match=f"did you mean '{meant}'"):
        tool("train_net", "--config-file", tmp_path / "own.yaml", "DATASETS.TRAIN", "('toy_panoptic_train',)",
             "MODEL.ROI_MASK_HEAD.NAME", "RecurrentMaskHead", "OUTPUT_DIR", tmp_path / "run")  # fmt: skip


def test_boxes_only_need_a_model_without_masks(own):
    panoptic_set.register(own, "own_source")
    write_instances_json("own_source", str(own / "instances.json"))
    content = json.loads((own / "instances.json").read_text())
    for annotation in content["annotations"]:
        del annotation["segmentation"]
    (own / "instances.json").write_text(json.dumps(content))
    run = [*TOY, "--register-coco", "own_boxes", own / "instances.json", own / "images", *TINY, "OUTPUT_DIR", own / "r"]
    with pytest.raises(SystemExit, match="instances.json .*MODEL.MASK_ON"):
        tool("train_net", *run)
    tool("train_net", *run, "MODEL.MASK_ON", "False")
    assert set(json.loads((own / "r/inference/own_boxes/results.json").read_text())) == {"bbox"}


def test_keypoints_are_not_registered_by_flags(own):
    panoptic_set.register(own, "own_source")
    write_instances_json("own_source", str(own / "instances.json"))
    named = ["--register-coco", "own_points", str(own / "instances.json"), str(own / "images")]
    with pytest.raises(SystemExit, match="^train_net.py: MODEL.KEYPOINT_ON is True"):
        tool("train_net", *TOY, *named, "MODEL.KEYPOINT_ON", "True", "OUTPUT_DIR", own / "run")


@pytest.mark.parametrize(
    "content,expected", [("[]", "categories"), ('{"categories": [{"id": 1}]}', "name"), ("{", "instances.json")]
)
def test_an_invalid_instances_file_is_named(tmp_path, content, expected):
    (tmp_path / "instances.json").write_text(content)
    named = ["--register-coco", "own_none", str(tmp_path / "instances.json"), str(tmp_path)]
    with pytest.raises(SystemExit, match=f"instances.json.*{expected}|{expected}"):
        main([*TOY, *named, "OUTPUT_DIR", str(tmp_path / "run")])
