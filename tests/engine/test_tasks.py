"""Every kind of data set of detectron2 trains and evaluates; missing packages of Cityscapes and LVIS are named."""

import json

import cv2
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_sem_seg, register_coco_instances
from helpers import panoptic_set, standard_sets
from helpers.paths import ROOT

from crbp_d2.data import semantic_map, write_instances_json
from crbp_d2.engine import tasks
from crbp_d2.engine.run import main
from tools.data_sets import free

TOY = str(ROOT / "configs/quick/panoptic_R18_crbp_toy.yaml")
NAMES = ("kinds_panoptic", "kinds_panoptic_as_files", "kinds_coco", "kinds_sem_seg")
TINY = ["SOLVER.IMS_PER_BATCH", 2, "DATALOADER.NUM_WORKERS", 0, "MODEL.RPN.POST_NMS_TOPK_TEST", 5,
        "SOLVER.MAX_ITER", 1, "SOLVER.WARMUP_ITERS", 0, "TEST.PICTURES", 1, "INPUT.MIN_SIZE_TRAIN", "(64,)",
        "INPUT.MIN_SIZE_TEST", 64, "MODEL.RECURRENCE.STEPS", 2, "MODEL.DEVICE", "cpu",
        "MODEL.ROI_HEADS.NUM_CLASSES", 2, "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 3]  # fmt: skip
INSTANCES = ["MODEL.META_ARCHITECTURE", "GeneralizedRCNN", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0,
             "TEST.DETECTIONS_PER_IMAGE", 3, "MODEL.ROI_HEADS.NUM_CLASSES"]  # fmt: skip
SEMANTIC = ["MODEL.META_ARCHITECTURE", "SemanticSegmentor", "MODEL.SEM_SEG_HEAD.NUM_CLASSES"]
# name, settings, groups of metrics, packages
STANDARD = {
    "cityscapes_fine_instance_seg": ([*INSTANCES, 8], {"segm"}, ("cityscapesscripts", "shapely")),
    "cityscapes_fine_sem_seg": ([*SEMANTIC, 19], {"sem_seg"}, ("cityscapesscripts",)),
    "cityscapes_fine_panoptic": ([*SEMANTIC, 19], {"sem_seg"}, ("cityscapesscripts",)),
    "lvis_v1": ([*INSTANCES, 1203], {"bbox", "segm"}, ("lvis",)),
}


@pytest.fixture(scope="module", autouse=True)
def sets(tmp_path_factory):
    root = tmp_path_factory.mktemp("kinds")
    panoptic_set.write_set(root)
    panoptic_set.register(root, "kinds_panoptic")
    write_instances_json("kinds_panoptic", str(root / "instances.json"))
    register_coco_instances("kinds_coco", {}, str(root / "instances.json"), str(root / "images"))
    (root / "semantic").mkdir()
    for record in DatasetCatalog.get("kinds_panoptic"):
        cv2.imwrite(str(root / "semantic" / record["file_name"].rsplit("/", 1)[1]), semantic_map(record))
    DatasetCatalog.register(
        "kinds_sem_seg", lambda: load_sem_seg(str(root / "semantic"), str(root / "images"), "png", "png")
    )
    MetadataCatalog.get("kinds_sem_seg").set(
        evaluator_type="sem_seg", stuff_classes=["things", "sea", "sky"], ignore_label=255
    )
    standard_sets.write_cityscapes(root)
    standard_sets.write_lvis(root)
    with standard_sets.registered(root):
        yield
    free(*NAMES)


def run(train, test, folder, *options):
    options = [
        "DATASETS.TRAIN",
        f"('{train}',)",
        "DATASETS.TEST",
        f"('{test}',)",
        "OUTPUT_DIR",
        folder,
        *TINY,
        *options,
    ]
    main(["--config-file", TOY, *map(str, options)])
    folder = folder / "inference" / test
    return folder, json.loads((folder / "results.json").read_text())


@pytest.mark.parametrize(
    "name,architecture,figures",
    [
        ("kinds_coco", "GeneralizedRCNN", {"bbox", "segm"}),
        ("kinds_panoptic", "RecurrentPanopticFPN", {"panoptic_seg", "bbox", "segm", "sem_seg"}),
        ("kinds_panoptic", "GeneralizedRCNN", {"bbox", "segm"}),
        ("kinds_panoptic", "SemanticSegmentor", {"sem_seg"}),
        ("kinds_sem_seg", "SemanticSegmentor", {"sem_seg"}),
    ],
)
def test_metrics_of_what_the_model_predicts(tmp_path, name, architecture, figures):
    folder, results = run(name, name, tmp_path, "MODEL.META_ARCHITECTURE", architecture)
    assert set(results) == figures
    picture = cv2.imread(str(next((folder / "pictures").iterdir())))
    assert picture.shape[1] > 2 * picture.shape[0]
    if "segm" in figures:
        assert (folder / "coco_instances_results.json").exists()


def test_steps_to_evaluate_need_a_kind_with_such_metrics(tmp_path):
    options = ("MODEL.META_ARCHITECTURE", "GeneralizedRCNN", "TEST.STEPS_TO_EVALUATE", "(1, 2)")
    with pytest.raises(SystemExit, match="TEST.STEPS_TO_EVALUATE is .1, 2.*'coco'"):
        run("kinds_coco", "kinds_coco", tmp_path, *options)


@pytest.mark.slow
@pytest.mark.parametrize("name", STANDARD)
def test_metrics_of_the_package_of_a_standard_set(tmp_path, monkeypatch, name):
    settings, figures, packages = STANDARD[name]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for package in packages:
        pytest.importorskip(package)
    folder, results = run(f"{name}_train", f"{name}_val", tmp_path / "run", *settings)
    assert set(results) == figures
    # LVIS gives -100 to what has no instance.
    values = [value for group in results.values() for value in group.values() if value is not None]
    assert values and all(-100 <= value <= 100 for value in values)
    assert len(list((folder / "pictures").iterdir())) == 1
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("name,package", [(name, package) for name in STANDARD for package in STANDARD[name][2]])
def test_a_missing_package_is_named_before_building(tmp_path, monkeypatch, name, package):
    find = tasks.importlib.util.find_spec
    installed = {p for kind in STANDARD.values() for p in kind[2]} - {package}
    monkeypatch.setattr(
        tasks.importlib.util,
        "find_spec",
        lambda module: None if module == package else "there" if module in installed else find(module),
    )
    with pytest.raises(SystemExit) as stopped:
        run(f"{name}_train", f"{name}_val", tmp_path / "run", *STANDARD[name][0])
    message = str(stopped.value)
    assert f"{name}_train" in message and f"needs {package}: " in message and "`pip install" in message
    assert "\n" not in message and not (tmp_path / "run").exists()
