"""`crbp-train` with the data sets of tools.soak, whose folder the environment names; run as a script.

Processes that it spawns import it, and so have the data sets too. Each leaves its weights in OUTPUT_DIR/rank_<r>.pt,
and those it started from in OUTPUT_DIR/start_<r>.pt.
"""

import json
import os
import shutil
import sys
from pathlib import Path

import cv2
import torch
from detectron2.utils import comm

from crbp_d2 import Trainer
from crbp_d2.data import register_panoptic
from crbp_d2.data.panoptic.toy import write_toy_panoptic
from crbp_d2.engine.run import main
from tools.soak.small_runs import register_small_sets

before_train, after_train = Trainer.before_train, Trainer.after_train


def save_weights(trainer: Trainer, name: str) -> None:
    path = f"{trainer.cfg.OUTPUT_DIR}/{name}_{comm.get_rank()}.pt"
    torch.save(dict(trainer.checkpointer.model.named_parameters()), path)


def before_train_and_save(self) -> None:
    save_weights(self, "start")
    before_train(self)


def after_train_and_save(self) -> None:
    after_train(self)
    save_weights(self, "rank")


def write_set_with_an_empty_image(root: Path) -> None:
    """Two toy scenes, of which the second has nothing in it."""
    write_toy_panoptic(root / "drawn", "train", 2, 64, 0)
    folder = root / "half_empty"
    shutil.copytree(root / "drawn", folder)
    content = json.loads((folder / "panoptic.json").read_text())
    content["annotations"][1]["segments_info"] = []
    (folder / "panoptic.json").write_text(json.dumps(content))
    path = str(folder / "panoptic" / content["annotations"][1]["file_name"])
    cv2.imwrite(path, cv2.imread(path) * 0)


if "SMALL_SETS" in os.environ:
    root = Path(os.environ["SMALL_SETS"])
    register_small_sets(root)
    if (folder := root / "half_empty").exists():
        register_panoptic("half_empty", f"{folder}/panoptic.json", f"{folder}/panoptic", f"{folder}/images")
    Trainer.before_train, Trainer.after_train = before_train_and_save, after_train_and_save

if __name__ == "__main__":
    main(sys.argv[1:])
