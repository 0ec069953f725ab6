"""Test stimuli of the Pathfinder study."""

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog

from crbp_d2.data import register_builtin, register_pathfinder
from crbp_d2.engine.loaders import build_test_loader


def held_out_set(spec: str, count: int, seed: int | None) -> str:
    """The name of a registered set of `count` stimuli of a seed; None: of the spec's own validation set."""
    if seed is None:
        register_builtin()
        return f"pathfinder_{spec}_val"
    name = f"{spec}_seed{seed}"
    if f"pathfinder_{name}_val" not in DatasetCatalog.list():
        register_pathfinder(spec, name, num_val=count, seed=seed)
    return f"pathfinder_{name}_val"


def first_batches(cfg: CfgNode, name: str, count: int) -> list[list[dict]]:
    """The first `count` stimuli of a data set, in batches of TEST.IMS_PER_BATCH."""
    size = cfg.TEST.IMS_PER_BATCH
    batches = []
    for batch in build_test_loader(cfg, name):
        batches.append(batch)
        if len(batches) * size >= count:
            break
    return batches
