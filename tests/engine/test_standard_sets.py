"""Cityscapes and LVIS train and evaluate by their own packages, which are asked for by name where they are missing."""

import json

import pytest
from helpers import standard_sets
from helpers.paths import ROOT

from crbp_d2.engine import tasks
from crbp_d2.engine.run import main

TOY = str(ROOT / "configs/quick/panoptic_R18_crbp_toy.yaml")
TINY = ["SOLVER.IMS_PER_BATCH", 2, "DATALOADER.NUM_WORKERS", 0, "MODEL.RPN.POST_NMS_TOPK_TEST", 5,
        "SOLVER.MAX_ITER", 1, "SOLVER.WARMUP_ITERS", 0, "TEST.PICTURES", 1, "INPUT.MIN_SIZE_TRAIN", "(48,)",
        "INPUT.MIN_SIZE_TEST", 48, "MODEL.RECURRENCE.STEPS", 2, "MODEL.DEVICE", "cpu",
        "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0, "TEST.DETECTIONS_PER_IMAGE", 3]  # fmt: skip
INSTANCES = ["MODEL.META_ARCHITECTURE", "GeneralizedRCNN", "MODEL.ROI_HEADS.NUM_CLASSES"]
SEMANTIC = ["MODEL.META_ARCHITECTURE", "SemanticSegmentor", "MODEL.SEM_SEG_HEAD.NUM_CLASSES"]
# name, settings, figures, packages
KINDS = {
    "cityscapes_fine_instance_seg": ([*INSTANCES, 8], {"segm"}, ("cityscapesscripts", "shapely")),
    "cityscapes_fine_sem_seg": ([*SEMANTIC, 19], {"sem_seg"}, ("cityscapesscripts",)),
    "cityscapes_fine_panoptic": ([*SEMANTIC, 19], {"sem_seg"}, ("cityscapesscripts",)),
    "lvis_v1": ([*INSTANCES, 1203], {"bbox", "segm"}, ("lvis",)),
}


@pytest.fixture(scope="module", autouse=True)
def sets(tmp_path_factory):
    root = tmp_path_factory.mktemp("standard")
    standard_sets.write_cityscapes(root)
    standard_sets.write_lvis(root)
    with standard_sets.registered(root):
        yield


def run(name, folder, *options):
    settings = [*KINDS[name][0], "DATASETS.TRAIN", f"('{name}_train',)", "DATASETS.TEST", f"('{name}_val',)",
                "OUTPUT_DIR", folder, *TINY, *options]  # fmt: skip
    return main(["--config-file", TOY, *map(str, settings)])


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_one_step_and_the_figures_of_the_sets_own_package(tmp_path, monkeypatch, name):
    _, figures, packages = KINDS[name]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for package in packages:
        pytest.importorskip(package)
    run(name, tmp_path / "run")
    folder = tmp_path / f"run/inference/{name}_val"
    results = json.loads((folder / "results.json").read_text())
    assert set(results) == figures
    # LVIS gives -100 to what has no instance.
    values = [value for group in results.values() for value in group.values() if value is not None]
    assert values and all(-100 <= value <= 100 for value in values)
    assert len(list((folder / "pictures").iterdir())) == 1
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("name,package", [(name, package) for name in KINDS for package in KINDS[name][2]])
def test_a_package_that_a_set_needs_is_named_before_anything_is_built(tmp_path, monkeypatch, name, package):
    find = tasks.importlib.util.find_spec
    installed = {p for kind in KINDS.values() for p in kind[2]} - {package}
    monkeypatch.setattr(
        tasks.importlib.util,
        "find_spec",
        lambda module: None if module == package else "there" if module in installed else find(module),
    )
    with pytest.raises(SystemExit) as stopped:
        run(name, tmp_path / "run")
    message = str(stopped.value)
    assert f"{name}_train" in message and f"needs {package}: " in message and "`pip install" in message
    assert "\n" not in message and not (tmp_path / "run").exists()
