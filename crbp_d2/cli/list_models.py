"""List the configs, with those of their weights and data that are on this machine.

initial: MODEL.WEIGHTS, with which a training begins. trained: result of a training by this config, in its OUTPUT_DIR
below the working directory. data: of training and evaluation; "on first use": the run that needs it draws it.
"""

import argparse
from collections.abc import Iterable
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from tabulate import tabulate

from crbp_d2 import model_zoo
from crbp_d2.checkpoint.loading import is_cached, weights_in
from crbp_d2.data import check_dataset_available, register_builtin

HEADERS = ("config", "rule", "initial", "trained", "data")
# States of a data set, the most important first.
STATES = ("missing", "on first use", "here")
RECURRENT = ("RecurrentMaskHead", "RecurrentSemSegHead", "ContourSegHead")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help="only configs with one of these in their names")
    args = parser.parse_args(arguments)
    register_builtin()
    names = [n for n in model_zoo.config_names() if not args.parts or any(part in n for part in args.parts)]
    print(tabulate([row(name) for name in names], HEADERS))
    print(f"\n{len(names)} configs in {model_zoo.config_folder()}")


def row(name: str) -> tuple[str, ...]:
    """The row of a config; see HEADERS."""
    cfg = model_zoo.get_config(name)
    if isinstance(cfg, CfgNode):
        weights, folder = cfg.MODEL.WEIGHTS, cfg.OUTPUT_DIR
        sets = (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)
        heads = (cfg.MODEL.SEM_SEG_HEAD.NAME, cfg.MODEL.ROI_MASK_HEAD.NAME if cfg.MODEL.MASK_ON else "")
        recurrent = any(head in RECURRENT for head in heads)
        rule = f"{cfg.MODEL.RECURRENCE.RULE}, {cfg.MODEL.RECURRENCE.STEPS} steps" if recurrent else "feedforward"
    else:
        weights, folder = cfg.train.init_checkpoint, cfg.train.output_dir
        sets = (cfg.dataloader.train.dataset.names, cfg.dataloader.test.dataset.names)
        rule = "LazyConfig"
    initial = "random" if not weights else f"{Path(weights).name} {'cached' if is_cached(weights) else 'not cached'}"
    return name, rule, initial, _trained(folder), _data(sets)


def _trained(folder: str) -> str:
    try:
        return weights_in(folder)
    except FileNotFoundError:
        return "-"


def _data(names: Iterable[str]) -> str:
    """The most important state of several data sets, and the first of them in it."""
    states = {data_state(name): name for name in reversed([*names])}
    return next(f"{state}: {states[state]}" for state in STATES if state in states)


def data_state(name: str) -> str:
    """One of STATES."""
    try:
        check_dataset_available(name)
    except FileNotFoundError:
        return "missing"
    metadata = MetadataCatalog.get(name)
    if metadata.get("endless"):
        return "on first use"
    source = metadata.get("source")
    path = source.path if source else metadata.get("panoptic_json") or metadata.get("json_file") or ""
    return "here" if Path(path).exists() else "on first use"
