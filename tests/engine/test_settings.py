"""Invalid settings: one line that names the key, before anything is built."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from detectron2 import model_zoo
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from helpers import forked
from helpers.paths import ROOT
from helpers.refusals import QUICK, refusal

from crbp_d2.config import add_crbp_config
from crbp_d2.config_file import load_config, value_of
from crbp_d2.engine.settings import COMMON, TRAINING, check_settings
from crbp_d2.engine.setup import argument_parser, check
from tools.data_sets import free

pytestmark = pytest.mark.usefixtures("nothing_is_built")


@pytest.mark.parametrize(
    "key,value",
    [
        ("SOLVER.MAX_ITER", 0),
        ("SOLVER.MAX_ITER", -3),
        ("SOLVER.CHECKPOINT_PERIOD", 0),
        ("SOLVER.IMS_PER_BATCH", 0),
        ("SOLVER.IMS_PER_BATCH", -4),
        ("SOLVER.BASE_LR", -0.1),
        ("SOLVER.BASE_LR", "nan"),
        ("SOLVER.MOMENTUM", 1.0),
        ("SOLVER.WEIGHT_DECAY", -1.0),
        ("SOLVER.GAMMA", 0.0),
        ("SOLVER.STEPS", (5, 3)),
        ("SOLVER.WARMUP_ITERS", -1),
        ("SOLVER.WARMUP_METHOD", "cubic"),
        ("SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "full"),
        ("SOLVER.CLIP_GRADIENTS.CLIP_VALUE", 0.0),
        ("DATALOADER.NUM_WORKERS", -1),
        ("DATASETS.TRAIN", ()),
        ("OUTPUT_DIR", "''"),
        ("OUTPUT_DIR", "' '"),
        ("MODEL.PIXEL_STD", [0.0]),
        ("MODEL.PIXEL_STD", [-1.0]),
        ("MODEL.PIXEL_STD", [1.0, 1.0]),
        ("MODEL.PIXEL_MEAN", []),
        ("MODEL.PIXEL_MEAN", ["a"]),
        ("MODEL.PIXEL_STD", [None]),
        ("MODEL.DEVICE", "gpu"),
        ("MODEL.META_ARCHITECTURE", "Segmentor"),
        ("MODEL.BACKBONE.NAME", "Stem"),
        ("MODEL.SEM_SEG_HEAD.NAME", "ContourHead"),
        ("MODEL.RECURRENCE.STEPS", 0),
        ("TEST.IMS_PER_BATCH", 0),
        ("TEST.EVAL_PERIOD", -1),
        ("TEST.PICTURES", -1),
        ("TEST.BEST_METRIC", "pathfinder/F1"),
        ("INPUT.MIN_SIZE_TRAIN", ()),
        ("SEED", 2**32),
        ("SEED", None),
        ("VIS_PERIOD", -1),
        ("OUTPUT_DIR", None),
        ("OUTPUT_DIR", "s3://bucket/run"),
        ("DATASETS.TEST", None),
        ("DATASETS.TRAIN", "(5,)"),
        ("MODEL.DEVICE", None),
        ("MODEL.DEVICE", "meta"),
        ("MODEL.DEVICE", "mps"),
        ("MODEL.SEM_SEG_HEAD.IN_FEATURES", None),
        ("MODEL.SEM_SEG_HEAD.LOSS_WEIGHT", -1.0),
        ("MODEL.SEM_SEG_HEAD.IGNORE_VALUE", 0),
        ("MODEL.RECURRENCE.EARLY_STOP.TOL", None),
        ("INPUT.RANDOM_FLIP", "sideways"),
        ("TEST.EXPECTED_RESULTS", "[5]"),
        ("TEST.EXPECTED_RESULTS", "[['pathfinder', 'F1', 1e400, 1]]"),
        ("GLOBAL.HACK", "1e400"),
    ],
)
def test_an_invalid_value_is_named_with_its_key(key, value):
    message = refusal(key, value)
    assert key in message and str(value).strip("'").replace("1e400", "inf") in message


TOY = "configs/quick/panoptic_R18_crbp_toy.yaml"


@pytest.mark.parametrize(
    "key,value",
    [
        ("MODEL.ROI_HEADS.NMS_THRESH_TEST", "1e400"),
        ("MODEL.ROI_MASK_HEAD.NAME", "Mask"),
        ("MODEL.SEM_SEG_HEAD.IGNORE_VALUE", 0),
        ("INPUT.FORMAT", "RGBA"),
        ("INPUT.FORMAT", "L"),
        ("INPUT.RANDOM_FLIP", "both"),
        ("INPUT.MASK_FORMAT", "rle"),
        ("TEST.BEST_METRIC", "PQ"),
    ],
)
def test_settings_of_roi_models(key, value):
    message = refusal("TEST.EVAL_PERIOD", 5, key, value, config=TOY)
    assert key in message and str(value).strip("'").replace("1e400", "inf") in message


def test_the_configs_of_detectron2_and_ours_are_allowed():
    folders = Path(model_zoo.__file__).parent / "configs", ROOT / "configs"
    paths = [str(path) for folder in folders for path in folder.rglob("*.yaml")
             if "/bases/" not in str(path) and not path.name.startswith("Base")]  # fmt: skip
    assert len(paths) > 100
    for path in paths:
        cfg = get_cfg()
        add_crbp_config(cfg)
        # RetinaNet's has a tag that our loader does not follow.
        cfg.merge_from_file(path, allow_unsafe=True)
        cfg.MODEL.DEVICE, cfg.SOLVER.AMP.ENABLED = "cpu", False
        check_settings(cfg, processes=1)


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
@pytest.mark.parametrize(
    "flags,parts",
    [
        (["--num-gpus", 2], ["--num-gpus", "2", "--num-processes"]),
        (["SOLVER.AMP.ENABLED", True], ["SOLVER.AMP.ENABLED"]),
    ],
)
def test_what_needs_a_gpu_says_so(flags, parts):
    message = refusal(*flags)
    assert all(part in message for part in parts)


def test_an_unknown_data_set_is_named_with_its_key():
    for key in ("DATASETS.TRAIN", "DATASETS.TEST"):
        assert key in (message := refusal(key, ("nothing",))) and "'nothing'" in message


def test_flags_that_contradict_each_other_or_the_batch():
    assert "--num-processes" in refusal("--num-gpus", 2, "--num-processes", 2)
    assert "--num-processes" in refusal("--num-processes", -1)
    assert "--dist-url" in refusal("--num-machines", 2)
    assert "--dist-url" in refusal("--num-gpus", 0, "--num-processes", 2, "--dist-url", "nonsense")
    assert "--num-machines" in refusal("--num-machines", 0)
    assert "--machine-rank" in refusal("--machine-rank", 1)
    message = refusal("--num-gpus", 0, "--num-processes", 3)
    assert "SOLVER.IMS_PER_BATCH" in message and "4" in message and "3" in message


def test_evaluation_needs_data_and_weights(tmp_path):
    assert "DATASETS.TEST" in refusal("--eval-only", "--untrained", "DATASETS.TEST", ())
    assert "MODEL.WEIGHTS" in refusal("--eval-only")
    message = refusal("--eval-only", "--resume", "OUTPUT_DIR", tmp_path)
    assert "MODEL.WEIGHTS" in message and str(tmp_path) in message


def test_unknown_keys_and_types():
    assert "SOLVER.MAX_ITERS" in refusal("SOLVER.MAX_ITERS", 5)
    assert "SOLVER.MAX_ITER" in refusal("SOLVER.MAX_ITER", "many")
    assert "TEST.PICTURES" in refusal("SOLVER.MAX_ITER", 5, "TEST.PICTURES")


@pytest.mark.parametrize("value", [3, None, {}, "a"])
def test_a_section_in_place_of_a_key(value):
    message = refusal("MODEL.RPN", value)
    assert "MODEL.RPN" in message and len(message) < 200


@pytest.mark.parametrize(
    "key,value",
    [
        ("SOLVER.LR_SCHEDULER_NAME", "MyScheduler"),
        ("SOLVER.OPTIMIZER", "Lion"),
        ("DATALOADER.SAMPLER_TRAIN", "MySampler"),
        ("INPUT.CROP.TYPE", "my_crop"),
        ("MODEL.ROI_BOX_HEAD.POOLER_TYPE", "MyPooler"),
    ],
)
def test_parts_of_a_user_are_not_rejected_by_name(pathfinder_config, key, value):
    cfg = pathfinder_config(key, value)
    check(cfg)
    assert value_of(cfg, key) == value


def test_whole_numbers_stand_for_numbers():
    options = ["MODEL.RECURRENCE.PENALTY.WEIGHT", "7", "SOLVER.BASE_LR", 1, "SOLVER.MAX_ITER", "9"]
    cfg = load_config(str(ROOT / TOY), options)
    found = cfg.MODEL.RECURRENCE.PENALTY.WEIGHT, cfg.SOLVER.BASE_LR, cfg.SOLVER.MAX_ITER
    assert found == (7.0, 1.0, 9) and [type(value) for value in found] == [float, float, int]


def test_names_of_data_sets_stay_in_the_output_folder(pathfinder_config):
    for name in ("../../up", "/tmp/abs"):
        MetadataCatalog.get(name).set(**MetadataCatalog.get("pathfinder_PF6s_val").as_dict() | {"name": name})
        DatasetCatalog.register(name, list)
        try:
            with pytest.raises(ValueError, match=f"{name}.*leads out of"):
                check(pathfinder_config("DATASETS.TEST", (name,)))
        finally:
            free(name)


def test_help_says_where_flags_go():
    assert "before the first KEY VALUE" in argument_parser().format_help()


def test_every_key_of_the_tables_exists(pathfinder_config):
    cfg = pathfinder_config()
    check_settings(cfg)
    for key in (*COMMON, *TRAINING):
        node = cfg
        for part in key.split("."):
            assert part in node, key
            node = node[part]


@pytest.mark.slow
def test_a_missing_detectron2_is_named_in_one_line(tmp_path):
    # One of this name that cannot be imported, before the real one.
    (tmp_path / "detectron2.py").write_text("raise ModuleNotFoundError('', name='detectron2')\n")
    command = [sys.executable, str(ROOT / "tools/train_net.py"), "--config-file", str(ROOT / QUICK)]
    environment = {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 1 and "detectron2" in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_the_command_reports_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    arguments = ["--config-file", ROOT / QUICK, "SOLVER.MAX_ITER", 0]
    log = tmp_path / "log"
    status = forked.run(ROOT / "tools/train_net.py", arguments, log, folder=tmp_path / "empty")
    said = log.read_text()
    assert status == 1 and "SOLVER.MAX_ITER" in said and "Traceback" not in said
    assert not list((tmp_path / "empty").iterdir())
