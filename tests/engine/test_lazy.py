"""The LazyConfig twin: the YAML's model, and a training from the command line."""

import json

import pytest
import torch
from detectron2.config import LazyConfig, get_cfg, instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage
from helpers import panoptic_set
from helpers.paths import ROOT
from helpers.programs import tool

from crbp_d2 import add_crbp_config
from crbp_d2.engine.run import main
from tools.data_sets import free

LAZY, YAML = str(ROOT / "configs/panoptic_R50_crbp.py"), str(ROOT / "configs/panoptic_R50_crbp.yaml")
NARROW = ["model.roi_heads.num_classes=2", "model.sem_seg_head.num_classes=3", "model.roi_heads.batch_size_per_image=8",
          "model.roi_heads.mask_head.recurrence.steps=2", "model.proposal_generator.post_nms_topk=[20,5]",
          "train.init_checkpoint=''", "dataloader.train.total_batch_size=2", "dataloader.train.num_workers=0",
          "dataloader.test.num_workers=0", "dataloader.test.mapper.augmentations.0.short_edge_length=64",
          "dataloader.train.mapper.augmentations.0.short_edge_length=[64]", "train.max_iter=1"]  # fmt: skip


def an_image(size=96):
    generator = torch.Generator().manual_seed(0)
    masks = torch.zeros(1, size, size, dtype=torch.bool)
    masks[0, 10:60, 20:70] = True
    instances = Instances((size, size), gt_boxes=Boxes(torch.tensor([[20.0, 10, 70, 60]])),
                          gt_classes=torch.tensor([3]), gt_masks=BitMasks(masks))  # fmt: skip
    image = torch.randint(0, 255, (3, size, size), generator=generator, dtype=torch.uint8)
    return {"image": image, "instances": instances, "sem_seg": torch.full((size, size), 7)}


def test_model_and_losses_are_those_of_the_yaml():
    cfg = get_cfg()
    add_crbp_config(cfg)
    cfg.merge_from_file(YAML)
    cfg.merge_from_list(
        ["MODEL.DEVICE", "cpu", "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 8, "MODEL.RECURRENCE.STEPS", 20]
    )
    by_yaml = build_model(cfg)
    lazy = LazyConfig.apply_overrides(LazyConfig.load(LAZY), ["model.roi_heads.batch_size_per_image=8"])
    by_lazy = instantiate(lazy.model)
    by_lazy.load_state_dict(by_yaml.state_dict(), strict=True)
    assert repr(by_lazy) == repr(by_yaml)
    trained = [[name for name, p in model.named_parameters() if p.requires_grad] for model in (by_yaml, by_lazy)]
    assert trained[0] == trained[1]
    losses = []
    for model in (by_yaml, by_lazy):
        torch.manual_seed(1)
        with EventStorage():
            losses.append({name: loss.item() for name, loss in model([an_image()]).items()})
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert {"loss_mask", "loss_lipschitz", "loss_sem_seg"} < set(losses[0])


def test_it_trains_and_evaluates_from_the_command_line(tmp_path):
    panoptic_set.write_set(tmp_path)
    panoptic_set.register(tmp_path, "lazy_set")
    names = ["dataloader.train.dataset.names=lazy_set", "dataloader.test.dataset.names=lazy_set"]
    try:
        main(["--config-file", LAZY, *names, *NARROW, f"train.output_dir={tmp_path / 'run'}", "train.eval_period=1"])
        results = json.loads((tmp_path / "run/inference/lazy_set/results.json").read_text())
        assert {"panoptic_seg", "bbox", "segm", "sem_seg"} == set(results)
        assert json.loads((tmp_path / "run/metadata.json").read_text())["thing_classes"] == ["cat", "dog"]
        with pytest.raises(SystemExit, match="run of a LazyConfig"):
            tool("predict", tmp_path / "images", "--run", tmp_path / "run", "--output", tmp_path / "out")
        weights = f"train.init_checkpoint={tmp_path / 'run/model_final.pth'}"
        again = main(["--config-file", LAZY, "--eval-only", *names, *NARROW, f"train.output_dir={tmp_path / 'again'}",
                      weights])  # fmt: skip
        assert again["panoptic_seg"]["PQ"] == pytest.approx(results["panoptic_seg"]["PQ"])
    finally:
        free("lazy_set", "lazy_set_as_files")


@pytest.mark.parametrize(
    "option,expected",
    [
        ("train.max_itr=3", "train.max_itr"),
        ("train.max_itr=3", "did you mean 'train.max_iter'"),
        ("SOLVER.MAX_ITER", "key=value"),
        ("--dry-run", "--dry-run"),
        ("train.max_iter=0", "train.max_iter"),
        ("train.max_iter=abc", "train.max_iter"),
        ("train.output_dir=", "train.output_dir"),
        ("train.output_dir=null", "train.output_dir"),
        ("train.checkpointer.period=0", "train.checkpointer.period"),
        ("train.eval_period=-1", "train.eval_period"),
        ("train.log_period=0", "train.log_period"),
        ("train.device=nonsense", "train.device"),
        ("train.device=meta", "train.device"),
        ("+train.seed=nan", "train.seed"),
        ("train=5", "train"),
        ("=5", "'=5'"),
        ("model=null", "model"),
        ("train.max_iter=5", "dataloader.train.dataset.names"),
        ("model.roi_heads.mask_head.penalty_weight=nan", "model.roi_heads.mask_head.penalty_weight"),
        ("dataloader.train.total_batch_size=-4", "dataloader.train.total_batch_size"),
        ("dataloader.train.num_workers=-1", "dataloader.train.num_workers"),
        ("optimizer.lr=nan", "optimizer.lr"),
        ("optimizer.lr=-1", "optimizer.lr"),
    ],
)
def test_invalid_options_are_named_with_their_keys(option, expected):
    with pytest.raises(SystemExit) as stopped:
        main(["--config-file", LAZY, option, "dataloader.train.dataset.names=nothing"])
    assert expected in str(stopped.value) and "\n" not in str(stopped.value)


def test_weights_that_are_missing_are_named(tmp_path):
    panoptic_set.write_set(tmp_path)
    panoptic_set.register(tmp_path, "lazy_set")
    names = ["dataloader.train.dataset.names=lazy_set", "dataloader.test.dataset.names=lazy_set"]
    folder = f"train.output_dir={tmp_path / 'run'}"
    try:
        for flags, weights in (([], tmp_path / "none.pth"), (["--eval-only"], ""), (["--eval-only", "--resume"], "")):
            with pytest.raises(SystemExit, match=r"train\.init_checkpoint"):
                main(["--config-file", LAZY, *flags, *names, folder, f"train.init_checkpoint={weights}"])
    finally:
        DatasetCatalog.remove("lazy_set")
        MetadataCatalog.remove("lazy_set")


@pytest.mark.parametrize(
    "content,told",
    [("def (", "syntax"), ("import nothing_such", "nothing_such"), ("model = 1", "dataloader"),
     ("model = dataloader = optimizer = lr_multiplier = train = dict()", "train.output_dir")],
)  # fmt: skip
def test_files_that_are_no_lazy_config_are_named(tmp_path, content, told):
    path = tmp_path / "config.py"
    path.write_text(content)
    with pytest.raises(SystemExit) as stopped:
        main(["--config-file", str(path)])
    assert told in str(stopped.value) and "\n" not in str(stopped.value)
