"""Pathfinder in the engine: every config takes a step, the quick one runs through, streams go on where they were."""

import json

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import DefaultTrainer
from detectron2.utils.env import seed_all_rng
from helpers.paths import ROOT
from helpers.programs import tool

from crbp_d2 import Trainer, add_crbp_config
from crbp_d2.data import PathfinderDatasetMapper, register_builtin
from crbp_d2.data.pathfinder.dataset import default_folder, split_of
from crbp_d2.data.pathfinder.files import write_split
from crbp_d2.data.pathfinder.spec import SPECS
from crbp_d2.engine.loaders import build_train_loader, is_stream
from crbp_d2.modeling import check_recurrence_config

CONFIGS = {path.stem: path for path in sorted((ROOT / "configs/pathfinder").glob("*.yaml"))}
QUICK = ROOT / "configs/quick/pathfinder_hgru_crbp_instant_test.yaml"


@pytest.fixture(scope="module", autouse=True)
def builtin_sets():
    register_builtin()


def config(path, *options):
    cfg = get_cfg()
    add_crbp_config(cfg)
    cfg.merge_from_file(str(path))
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", *options])
    return cfg


# rule, cell, steps at paper scale, steps at laptop scale
EXPERIMENTS = {
    "hgru_bptt": ("bptt", "HGRUCell", 6, 6),
    "hgru_tbptt": ("tbptt", "HGRUCell", 6, 6),
    "hgru_bptt_every_step": ("bptt_every_step", "HGRUCell", 6, 6),
    "hgru_cbptt": ("cbptt", "HGRUCell", 6, 6),
    "hgru_rbp": ("rbp", "HGRUCell", 20, 12),
    "hgru_crbp": ("crbp", "HGRUCell", 20, 12),
    "hgru_deq": ("deq", "HGRUCell", 20, 12),
    "hgru_phantom": ("phantom", "HGRUCell", 20, 12),
    "hgru_crbp_released": ("crbp", "HGRUCell", 20, 12),
    "convlstm_bptt": ("bptt", "ConvLSTMCell", 6, 6),
    "convlstm_crbp": ("crbp", "ConvLSTMCell", 60, 24),
    "convgru_bptt": ("bptt", "ConvGRUCell", 6, 6),
    "convgru_crbp": ("crbp", "ConvGRUCell", 20, 12),
    "gala_crbp": ("crbp", "GalaHGRUCell", 20, 12),
    "hgru_progressive": ("progressive", "HGRUCell", 20, 12),
    "hgru_progressive_far": ("progressive_far", "HGRUCell", 20, 12),
    "hgru_progressive_mixed": ("progressive_mixed", "HGRUCell", 20, 12),
    "hgru_crbp_random": ("crbp_random", "HGRUCell", 20, 12),
    "convlstm_progressive": ("progressive", "ConvLSTMCell", 20, 12),
    "ff6": (None, None, None, None),
}
KERNELS = {"PF14": (3, 5, 7, 11), "PF6s": (3, 5, 9, 11)}


def experiments():
    for spec, column in (("PF14", 2), ("PF6s", 3)):
        for name, row in EXPERIMENTS.items():
            yield f"{spec}_{name}", (spec, *row[:2], row[column], 15 if spec == "PF14" else 7)
        for kernel in KERNELS[spec]:
            yield f"{spec}_hgru_crbp_k{kernel}", (spec, "crbp", "HGRUCell", EXPERIMENTS["hgru_crbp"][column], kernel)
    yield "PF6s_hgru_crbp_contracting", ("PF6s", "crbp", "HGRUCell", 6, 7)
    yield "PF14_hgru_crbp_contracting", ("PF14", "crbp", "HGRUCell", 10, 15)
    yield "PF20_hgru_crbp", ("PF20", "crbp", "HGRUCell", 30, 15)
    yield "PF25_hgru_crbp", ("PF25", "crbp", "HGRUCell", 80, 15)


def test_every_experiment_has_its_file_and_no_other():
    assert set(CONFIGS) == dict(experiments()).keys()


@pytest.mark.parametrize("name,row", list(experiments()))
def test_files_say_what_the_experiment_is(name, row):
    spec, rule, cell, steps, kernel = row
    cfg = config(CONFIGS[name])
    node, paper = cfg.MODEL.RECURRENCE, not spec.endswith("s")
    assert f"output/{name}" == cfg.OUTPUT_DIR
    assert (f"pathfinder_{spec}_train",) == cfg.DATASETS.TRAIN and f"pathfinder_{spec}_val" in cfg.DATASETS.TEST
    assert (cfg.SOLVER.OPTIMIZER, cfg.MODEL.CONTOUR.FOCAL_GAMMA, cfg.INPUT.RANDOM_FLIP) == ("Adam", 2, "both")
    assert kernel == node.CELL.KERNEL_SIZE
    if paper:
        epochs = cfg.SOLVER.IMS_PER_BATCH * cfg.SOLVER.MAX_ITER / 180_000
        assert (cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.BASE_LR, epochs) == (128, 0.001, 20)
        assert cfg.SOLVER.STEPS == () and cfg.SOLVER.WARMUP_ITERS == 0
    if rule is None:
        assert cfg.MODEL.SEM_SEG_HEAD.NAME == "FeedforwardContourHead" and cfg.MODEL.CONTOUR.NUM_LAYERS == 6
        return
    assert cfg.MODEL.SEM_SEG_HEAD.NAME == "ContourSegHead"
    terms, bound = (3, 0.5) if "contracting" in name else (15, 0.9)
    assert (rule, cell, steps, terms) == (node.RULE, node.CELL.NAME, node.STEPS, node.NEUMANN.TERMS)
    assert (10, "mean", bound) == (node.PENALTY.WEIGHT, node.PENALTY.REDUCTION, node.PENALTY.BOUND)
    assert ("released" if "released" in name else "printed") == node.CELL.FORM
    assert ("none" if cell in ("ConvLSTMCell", "ConvGRUCell") else "BN") == node.CELL.NORM
    assert (6 if rule.startswith("progressive") or rule == "crbp_random" else 3) == node.TRUNCATION
    assert steps in cfg.TEST.STEPS_TO_EVALUATE and max(cfg.TEST.STEPS_TO_EVALUATE) >= 4 * steps
    check_recurrence_config(cfg)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.filterwarnings("ignore::crbp_d2.recurrence.UnconvergedWarning")
def test_every_config_builds_and_takes_a_training_step(name):
    cfg = config(CONFIGS[name])
    seed_all_rng(0)  # of flips, too
    model = Trainer.build_model(cfg)
    optimizer = Trainer.build_optimizer(cfg, model)
    assert type(optimizer) is torch.optim.Adam
    # The stimuli of its own spec, without the files.
    stream = DatasetCatalog.get(cfg.DATASETS.TRAIN[0].replace("_train", "_stream"))
    records = [PathfinderDatasetMapper(cfg, is_train=True)(stream[k]) for k in range(2)]
    for record in records:  # a crop around the brightest pixel is enough for a step
        image, side = record["image"], 48
        brightest = divmod(int(image[0].argmax()), image.shape[2])
        y, x = (min(max(p - side // 2, 0), n - side) for p, n in zip(brightest, image.shape[1:], strict=True))
        window = slice(y, y + side), slice(x, x + side)
        record.update(image=image[(slice(None), *window)], sem_seg=record["sem_seg"][window])
    before = {key: p.detach().clone() for key, p in model.named_parameters()}
    losses = model(records)
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    optimizer.step()
    unmoved = [key for key, p in model.named_parameters() if not (p.isfinite().all() and (p != before[key]).any())]
    assert not unmoved


@pytest.fixture
def small_set(tmp_path, monkeypatch):
    """A few stimuli where those of PF6s are looked for; they are used as they are."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "datasets"))
    for split, count in (("train", 8), ("val", 4)):
        write_split(default_folder("PF6s") / split, split_of(SPECS["PF6s"], split, 0, count))


def train_net(*arguments):
    tool("train_net", "--config-file", QUICK, *arguments)


@pytest.mark.usefixtures("small_set")
def test_the_quick_config_trains_resumes_and_evaluates(tmp_path, monkeypatch):
    options = ["OUTPUT_DIR", tmp_path / "out", "DATALOADER.NUM_WORKERS", 0, "SOLVER.CHECKPOINT_PERIOD", 3]
    train_net(*options, "SOLVER.MAX_ITER", 6)
    first = []
    with monkeypatch.context() as patch:
        patch.setattr(DefaultTrainer, "train", lambda self: first.append(self.data_loader.first_batch))
        train_net("--resume", *options, "SOLVER.MAX_ITER", 9)
    assert first == [6]

    inference = tmp_path / "out/inference/pathfinder_PF6s_val"
    in_training = json.loads((inference / "results.json").read_text())
    found = in_training["pathfinder"]
    assert all(0 <= value <= 1 for value in found.values())
    assert {"F1", "F1@4", "F1@8", "IoU_pooled@8", "balanced_accuracy", "precision", "recall"} <= set(found)
    assert found["balanced_accuracy"] == found["balanced_accuracy@4"]
    assert len(list((inference / "pictures").iterdir())) == 2
    metrics = [json.loads(line) for line in (tmp_path / "out/metrics.json").read_text().splitlines()]
    assert {"loss_sem_seg", "loss_lipschitz", "recurrence/residual"} <= set(metrics[-2])

    (inference / "results.json").unlink()
    train_net("--eval-only", *options, "MODEL.WEIGHTS", tmp_path / "out/model_final.pth")
    assert json.loads((inference / "results.json").read_text()) == in_training


@pytest.mark.usefixtures("small_set")
def test_training_on_files():
    cfg = config(QUICK, "DATASETS.TRAIN", ("pathfinder_PF6s_train",), "DATALOADER.NUM_WORKERS", 0)
    batch = next(iter(build_train_loader(cfg)))
    assert len(batch) == 4 and all(0 <= record["image_id"] < 8 and record["sem_seg"].any() for record in batch)


def test_a_stream_is_known_by_what_it_is_not_by_its_name():
    DatasetCatalog.register("mine_stream", list)
    try:
        assert not is_stream("mine_stream") and not is_stream("pathfinder_PF6s_train")
        assert is_stream("pathfinder_PF6s_stream")
    finally:
        DatasetCatalog.remove("mine_stream")
        MetadataCatalog.remove("mine_stream")


@pytest.mark.parametrize(
    "options,expected",
    [
        (["TEST.STEPS_TO_EVALUATE", "(0, 4)"], r"TEST.STEPS_TO_EVALUATE is \(0, 4\); allowed"),
        (["MODEL.SEM_SEG_HEAD.NAME", "FeedforwardContourHead"], "TEST.STEPS_TO_EVALUATE is .* leave it empty"),
        (["MODEL.PIXEL_MEAN", "[0.0, 0.0]"], "MODEL.PIXEL_STD is .*MODEL.PIXEL_MEAN is"),
        (
            ["MODEL.PIXEL_MEAN", [0.0] * 3, "MODEL.PIXEL_STD", [1.0] * 3],
            "MODEL.PIXEL_MEAN has 3 values",
        ),
        (["MODEL.SEM_SEG_HEAD.NUM_CLASSES", 54], "MODEL.SEM_SEG_HEAD.NUM_CLASSES is 54"),
        (
            ["DATASETS.TEST", "('pathfinder_PF6s_stream',)"],
            "DATASETS.TEST names pathfinder_PF6s_stream, which has no end",
        ),
        (["DATASETS.TRAIN", "('pathfinder_PF6s_stream', 'pathfinder_PF6s_train')"], "must be the only one"),
        (["DATASETS.TEST", "('toy_panoptic_val',)"], "must name data sets of one kind, got .*toy_panoptic_val"),
        (["DATASETS.TEST", "('pathfinder_PF15_val',)"], "no data set is named 'pathfinder_PF15_val'"),
    ],
)
@pytest.mark.usefixtures("nothing_is_built")
def test_invalid_settings_fail_early(tmp_path, options, expected):
    with pytest.raises(SystemExit, match=expected):
        train_net(*options, "OUTPUT_DIR", tmp_path)
