"""The recurrent head in every model of detectron2's zoo that has masks."""

import json
import os

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.model_zoo import get_config_file
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances, PolygonMasks
from detectron2.utils.events import EventStorage
from helpers import panoptic_set
from helpers.programs import tool

from crbp_d2 import add_crbp_config
from crbp_d2.data import write_instances_json
from crbp_d2.engine.run import main
from crbp_d2.engine.setup import argument_parser, checked_config
from crbp_d2.modeling import RecurrentMaskHead, check_recurrence_config, compiled
from crbp_d2.modeling.compiled import has_compiled_part

SIDE = 64
SMALL = ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "MODEL.ROI_MASK_HEAD.NAME", "RecurrentMaskHead",
         "MODEL.RECURRENCE.STEPS", 2, "MODEL.RECURRENCE.NEUMANN.TERMS", 1, "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 8,
         "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0, "TEST.DETECTIONS_PER_IMAGE", 3, "MODEL.RPN.POST_NMS_TOPK_TRAIN", 20,
         "MODEL.RPN.POST_NMS_TOPK_TEST", 20]  # fmt: skip


def config_of(name):
    cfg = get_cfg()
    add_crbp_config(cfg)
    cfg.merge_from_file(get_config_file(name), allow_unsafe=True)
    return cfg


def with_masks():
    root = os.path.dirname(os.path.dirname(get_config_file("COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x.yaml")))
    for folder, _, files in os.walk(root):
        for file in files:
            name = os.path.relpath(os.path.join(folder, file), root)
            if file.endswith(".yaml") and os.sep in name and config_of(name).MODEL.MASK_ON:
                yield name


NAMES = sorted(with_masks())


def an_image(cfg):
    square = [10.0, 10, 50, 10, 50, 50, 10, 50]
    instances = Instances((SIDE, SIDE), gt_boxes=Boxes(torch.tensor([[10.0, 10, 50, 50]])),
                          gt_classes=torch.tensor([1]), gt_masks=PolygonMasks([[square]]))  # fmt: skip
    record = {"image": torch.randint(0, 255, (3, SIDE, SIDE), dtype=torch.uint8), "instances": instances}
    if cfg.MODEL.META_ARCHITECTURE == "PanopticFPN":
        record["sem_seg"] = torch.ones(SIDE, SIDE, dtype=torch.long)
    return record


def settings_of(name, *options):
    cfg = config_of(name)
    cfg.merge_from_list([*SMALL, *options])
    # Deeper ones are the same blocks repeated.
    cfg.MODEL.RESNETS.DEPTH = min(cfg.MODEL.RESNETS.DEPTH, 50)
    return cfg


def build(name, *options):
    cfg = settings_of(name, *options)
    check_recurrence_config(cfg)
    return cfg, build_model(cfg)


def test_all_of_them_are_found():
    assert len(NAMES) == 49


def builds_trains_a_step_and_infers(name):
    torch.manual_seed(0)
    cfg, model = build(name)
    assert isinstance(model.roi_heads.mask_head, RecurrentMaskHead)
    with EventStorage():
        losses = model([an_image(cfg)])
    assert {"loss_mask", "loss_lipschitz"} < set(losses)
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.roi_heads.mask_head.parameters())
    with torch.no_grad():
        output = model.eval()([{"image": an_image(cfg)["image"], "height": SIDE, "width": SIDE}])[0]
    assert output["instances"].pred_masks.shape[1:] == (SIDE, SIDE)


TRIED = set()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_it_builds_trains_a_step_and_infers(name):
    if "dconv" in name and not has_compiled_part():
        pytest.skip("deformable convolutions need detectron2's compiled part")
    settings = settings_of(name)
    # Configs that differ only in schedule and tests have one model.
    tried = (settings.MODEL.dump(), settings.INPUT.FORMAT)
    if tried not in TRIED:
        builds_trains_a_step_and_infers(name)
        TRIED.add(tried)


@pytest.mark.parametrize("name", [name for name in NAMES if "dconv" not in name])
def test_the_command_takes_it_with_the_heads_name_only(name):
    arguments = ["--config-file", get_config_file(name), "MODEL.ROI_MASK_HEAD.NAME", "RecurrentMaskHead"]
    cfg = checked_config(argument_parser().parse_args(arguments))
    assert cfg.MODEL.ROI_MASK_HEAD.NAME == "RecurrentMaskHead"


# Each kind of RoI heads and each meta-architecture.
KINDS = {
    "COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x.yaml": {"bbox", "segm"},
    "Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml": {"bbox", "segm"},
    "COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.yaml": {"bbox", "segm", "panoptic_seg", "sem_seg"},
}


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A panoptic set and its instances in files, in a folder that is not the repository's."""
    monkeypatch.chdir(tmp_path)
    panoptic_set.write_set(tmp_path)
    panoptic_set.register(tmp_path, "zoo_source")
    write_instances_json("zoo_source", "instances.json")
    before = set(DatasetCatalog.list())
    yield
    for name in {*DatasetCatalog.list()} - before | {"zoo_source"}:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_the_command_trains_and_evaluates_it_on_own_data(own, tmp_path, name):
    data = ["--register-coco", "zoo_own", "instances.json", "images"]
    if "panoptic_seg" in KINDS[name]:
        data = ["--register", "zoo_own", "panoptic.json", "panoptic", "images"]
    tool("train_net", "--config-file", get_config_file(name), *data, *SMALL, "SOLVER.MAX_ITER", 1,
         "SOLVER.IMS_PER_BATCH", 2, "DATALOADER.NUM_WORKERS", 0, "INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MIN_SIZE_TEST",
         64, "TEST.PICTURES", 1, "OUTPUT_DIR", "run")  # fmt: skip
    folder = tmp_path / "run/inference/zoo_own"
    assert set(json.loads((folder / "results.json").read_text())) == KINDS[name]
    assert len(list((folder / "pictures").iterdir())) == 1
    tool("predict", "images/002.png", "--run", "run", "--output", "out", "--steps", 1, 2)
    assert (tmp_path / "out/002.png").is_file()


@pytest.mark.parametrize("name", [name for name in NAMES if "dconv" in name])
def test_a_missing_compiled_part_is_named_with_its_key(tmp_path, monkeypatch, name):
    monkeypatch.setattr(compiled, "has_compiled_part", lambda: False)
    with pytest.raises(SystemExit) as stopped:
        main(["--config-file", get_config_file(name), *map(str, SMALL), "OUTPUT_DIR", str(tmp_path / "run")])
    message = str(stopped.value)
    assert "MODEL.RESNETS.DEFORM_ON_PER_STAGE is [False, True, True, True]" in message and "pip install" in message
    assert "\n" not in message and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "key,value", [("PROPOSAL_GENERATOR.NAME", "RRPN"), ("ROI_BOX_HEAD.POOLER_TYPE", "ROIAlignRotated")]
)
def test_rotated_boxes_need_the_compiled_part_too(monkeypatch, key, value):
    monkeypatch.setattr(compiled, "has_compiled_part", lambda: False)
    cfg = config_of("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml")
    compiled.check_compiled_part(cfg)
    cfg.merge_from_list([f"MODEL.{key}", value])
    with pytest.raises(ValueError, match=f"MODEL.{key} is '{value}'.*detectron2._C"):
        compiled.check_compiled_part(cfg)


def test_the_norm_of_the_head_is_that_of_the_readout():
    name = next(name for name in NAMES if "dconv" not in name and config_of(name).MODEL.ROI_MASK_HEAD.NORM == "GN")
    _, model = build(name)
    assert isinstance(model.roi_heads.mask_head.norm, torch.nn.GroupNorm)


def test_a_norm_that_the_readout_has_not_is_an_error():
    with pytest.raises(ValueError, match="ROI_MASK_HEAD.NORM is 'naiveSyncBN'"):
        build("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml", "MODEL.ROI_MASK_HEAD.NORM", "naiveSyncBN")
