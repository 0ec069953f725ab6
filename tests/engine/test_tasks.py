"""Every kind of data set that detectron2 knows trains and evaluates through the tool's main."""

import json

import cv2
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_sem_seg, register_coco_instances
from helpers import panoptic_set
from helpers.paths import ROOT

from crbp_d2.data import semantic_map, write_instances_json
from crbp_d2.engine.run import main
from tools.data_sets import free

TOY = str(ROOT / "configs/quick/panoptic_R18_crbp_toy.yaml")
NAMES = ("kinds_panoptic", "kinds_panoptic_as_files", "kinds_coco", "kinds_sem_seg")
TINY = ["SOLVER.IMS_PER_BATCH", 2, "DATALOADER.NUM_WORKERS", 0, "MODEL.RPN.POST_NMS_TOPK_TEST", 5,
        "SOLVER.MAX_ITER", 1, "SOLVER.WARMUP_ITERS", 0, "TEST.PICTURES", 1, "INPUT.MIN_SIZE_TRAIN", "(64,)",
        "INPUT.MIN_SIZE_TEST", 64, "MODEL.RECURRENCE.STEPS", 2, "MODEL.DEVICE", "cpu",
        "MODEL.ROI_HEADS.NUM_CLASSES", 2, "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 3]  # fmt: skip


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
    yield
    free(*NAMES)


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
def test_one_step_and_the_figures_of_what_the_model_predicts(tmp_path, name, architecture, figures):
    options = ["MODEL.META_ARCHITECTURE", architecture, "DATASETS.TRAIN", f"('{name}',)", "DATASETS.TEST",
               f"('{name}',)", "OUTPUT_DIR", tmp_path, *TINY]  # fmt: skip
    main(["--config-file", TOY, *map(str, options)])
    folder = tmp_path / "inference" / name
    assert set(json.loads((folder / "results.json").read_text())) == figures
    picture = cv2.imread(str(next((folder / "pictures").iterdir())))
    assert picture.shape[1] > 2 * picture.shape[0]
    if "segm" in figures:
        assert (folder / "coco_instances_results.json").exists()


def test_steps_to_evaluate_need_a_kind_with_figures_for_them(tmp_path):
    options = ["MODEL.META_ARCHITECTURE", "GeneralizedRCNN", "DATASETS.TRAIN", "('kinds_coco',)", "DATASETS.TEST",
               "('kinds_coco',)", "OUTPUT_DIR", tmp_path, *TINY, "TEST.STEPS_TO_EVALUATE", "(1, 2)"]  # fmt: skip
    with pytest.raises(SystemExit, match="TEST.STEPS_TO_EVALUATE is .1, 2.*'coco'"):
        main(["--config-file", TOY, *map(str, options)])
