"""The folder of a run: class names saved with its checkpoints, and the model loaded from both without a data set."""

import json
import os
import re
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.data import Metadata, MetadataCatalog
from detectron2.engine import HookBase
from detectron2.modeling import build_model
from detectron2.utils import comm
from torch import nn

from crbp_d2.checkpoint.loading import Checkpointer, weights_in
from crbp_d2.config_file import load_config
from crbp_d2.data import register_builtin
from crbp_d2.modeling.compiled import check_compiled_part
from crbp_d2.utils.files import write_json

METADATA = "metadata.json"
CONFIG = "config.yaml"
# Parts of detectron2's metadata that drawing and writing of predictions need.
KEPT = ("evaluator_type", "thing_classes", "thing_colors", "stuff_classes", "stuff_colors", "label_divisor",
        "ignore_label", "keypoint_names", "keypoint_connection_rules")  # fmt: skip
# Stored as lists, since JSON has no numbers as keys.
ID_MAPS = ("thing_dataset_id_to_contiguous_id", "stuff_dataset_id_to_contiguous_id")


class KeepMetadata(HookBase):
    """Writes class names, colours and ids of the training data to metadata.json in the run's folder."""

    def before_train(self) -> None:
        cfg = self.trainer.cfg
        if comm.is_main_process() and cfg.DATASETS.TRAIN:
            write_metadata(cfg.DATASETS.TRAIN[0], cfg.OUTPUT_DIR)


def write_metadata(name: str, folder: str) -> None:
    """Write class names, colours and ids of a registered data set to `folder`/metadata.json."""
    metadata = MetadataCatalog.get(name).as_dict()
    content = {"name": name, **{key: metadata[key] for key in KEPT if key in metadata}}
    content |= {key: list(metadata[key].items()) for key in ID_MAPS if key in metadata}
    write_json(os.path.join(folder, METADATA), content, indent=1)


def read_metadata(folder: str, cfg: CfgNode) -> Metadata:
    """Metadata of the data that a run was trained on, with made-up names where the run kept none.

    Raises:
        ValueError: an invalid metadata.json.
    """
    path = Path(folder, METADATA)
    if not path.is_file():
        return metadata_of(cfg)
    try:
        content = json.loads(path.read_text())
        content |= {key: dict(content[key]) for key in ID_MAPS if key in content}
        content.pop("name", None)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error}); remove it to go without class names") from error
    return Metadata(name=f"kept in {folder}", **content)


def metadata_of(cfg: CfgNode) -> Metadata:
    """Class names of the registered training data, or made-up ones."""
    register_builtin()
    registered = MetadataCatalog.get(cfg.DATASETS.TRAIN[0]).as_dict() if cfg.DATASETS.TRAIN else {}
    if "thing_classes" in registered or "stuff_classes" in registered:
        kept = {key: registered[key] for key in (*KEPT, *ID_MAPS) if key in registered}
        return Metadata(name="of the catalog", **kept)
    things = [f"class {k}" for k in range(cfg.MODEL.ROI_HEADS.NUM_CLASSES)]
    stuff = [f"class {k}" for k in range(cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES)]
    return Metadata(name="without names", thing_classes=things, stuff_classes=stuff, label_divisor=1000)


def load_run(folder: str, weights: str = "", opts: list[str] | None = None) -> tuple[CfgNode, nn.Module, Metadata]:
    """Config, model in evaluation mode and class names of a finished or running training.

    Args:
        folder: OUTPUT_DIR of the run.
        weights: a checkpoint; by default the first there is of model_best.pth, model_ema.pth, model_final.pth, newest.
        opts: alternating keys and values that change the config.

    Raises:
        FileNotFoundError: the folder does not belong to a run, or has no weights.
        ValueError: its files cannot be used, or an unknown key.
    """
    path = os.path.join(folder, CONFIG)
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"{folder} is not the folder of a run: it has no {CONFIG} (training writes it to OUTPUT_DIR)"
        )
    # The mark of a LazyConfig: a class to instantiate.
    if re.search(r"^\s*_target_:", Path(path).read_text(errors="replace"), flags=re.M):
        raise ValueError(
            f"{folder} is the run of a LazyConfig, which says nothing about reading pictures; predictions are for runs "
            "of YAML configs (docs/RECIPES.md has the model in Python)"
        )
    cfg = load_config(path, opts or [])
    if cfg.MODEL.DEVICE.startswith("cuda") and not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.WEIGHTS = weights or weights_in(folder)
    check_compiled_part(cfg)
    metadata = read_metadata(folder, cfg)
    model = build_model(cfg)
    Checkpointer(model, complete=True).load(cfg.MODEL.WEIGHTS)
    return cfg, model.eval(), metadata
