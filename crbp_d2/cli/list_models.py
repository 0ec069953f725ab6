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

HEADERS = ("config", "model", "trained by", "initial", "trained", "data")
# States of a data set, the most important first.
STATES = ("missing", "on first use", "here")
RECURRENT = {"RecurrentMaskHead": "masks", "RecurrentSemSegHead": "semantic map", "ContourSegHead": "contours"}


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
        model, rule = described(cfg)
        weights, folder = cfg.MODEL.WEIGHTS, cfg.OUTPUT_DIR
        sets = (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)
    else:
        model, rule = f"LazyConfig of {Path(name).stem}.yaml", ""
        weights, folder = cfg.train.init_checkpoint, cfg.train.output_dir
        sets = (cfg.dataloader.train.dataset.names, cfg.dataloader.test.dataset.names)
    initial = "random" if not weights else f"{Path(weights).name} {'cached' if is_cached(weights) else 'not cached'}"
    return name, model, rule, initial, _trained(folder), _data(sets)


def described(cfg: CfgNode) -> tuple[str, str]:
    """Network and learning rule of a config, in a few words."""
    settings, contours = cfg.MODEL.RECURRENCE, cfg.MODEL.META_ARCHITECTURE == "SemanticSegmentor"
    heads = (cfg.MODEL.SEM_SEG_HEAD.NAME, cfg.MODEL.ROI_MASK_HEAD.NAME if cfg.MODEL.MASK_ON else "")
    recurrent = [name for name in heads if name in RECURRENT]
    body = f"{cfg.MODEL.CONTOUR.CHANNELS} channels" if contours else f"R-{cfg.MODEL.RESNETS.DEPTH}"
    if not recurrent:
        layers = f"{cfg.MODEL.CONTOUR.NUM_LAYERS} layers" if contours else "four convolutions"
        return f"{body}, {layers}", "backpropagation"
    size = settings.CELL.KERNEL_SIZE
    kernel = f" {size}x{size}" if size else ""
    where = "" if contours else f" ({' and '.join(RECURRENT[name] for name in recurrent)})"
    return (
        f"{body}, {settings.CELL.NAME}{kernel}{where}",
        f"{settings.RULE}, {settings.STEPS} step{'s' * (settings.STEPS > 1)}",
    )


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
