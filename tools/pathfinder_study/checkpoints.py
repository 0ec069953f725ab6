"""A config beside each checkpoint of the study, with which detectron2 loads and evaluates it."""

import os
from pathlib import Path

from fvcore.common.config import CfgNode

from crbp_d2.utils.files import write_text

from .records import Record, Study


def with_checkpoint(study: Study, root: Path) -> list[Record]:
    """The records whose checkpoint is there."""
    return [record for record in study.records if record.checkpoint and (root / record.checkpoint).exists()]


def config_of(record: Record) -> str:
    """Path of the config beside the record's checkpoint."""
    return str(Path(record.checkpoint).with_suffix(".yaml"))


def write_config(record: Record, root: Path) -> None:
    """Write the config that a run was trained with: the one it is based on, and what was set on top.

    Args:
        root: that the record's paths are relative to.
    """
    path = root / config_of(record)
    base = os.path.relpath(root / record.config, path.parent)
    nodes = {}
    for name, value in zip(record.options[::2], record.options[1::2], strict=True):
        *parents, key = name.split(".")
        node = nodes
        for parent in parents:
            node = node.setdefault(parent, {})
        node[key] = value
    text = CfgNode({"_BASE_": Path(base).as_posix(), **nodes}).dump(sort_keys=False)
    write_text(path, f"# {record.run}, seed {record.seed}, as {Path(record.checkpoint).name} was trained.\n{text}")
