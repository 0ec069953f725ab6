"""summary.json, the study for programs: claims with their values, checkpoints with their config and scores."""

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

from fvcore.common.config import CfgNode

from crbp_d2.utils.files import write_text

from .claims import Claim
from .predicates import Outcome
from .records import Record, Study


def with_checkpoint(study: Study, root: Path) -> list[Record]:
    """The records whose checkpoint exists."""
    return [record for record in study.records if record.checkpoint and (root / record.checkpoint).exists()]


def config_of(record: Record) -> str:
    """Path of the config next to the record's checkpoint."""
    return str(Path(record.checkpoint).with_suffix(".yaml"))


def write_config(record: Record, root: Path) -> None:
    """Write the config a run was trained with, with which detectron2 loads and evaluates its checkpoint.

    Args:
        root: repository root of the record's paths.
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


def write_summary(path: Path, study: Study, outcomes: Sequence[tuple[Claim, Outcome]], root: Path) -> None:
    """Write {"claims": [...], "checkpoints": [...]}; paths in it are relative to `root`."""
    claims = [
        {
            "claim": claim.sentence,
            "paper": claim.paper,
            "measure": claim.metric,
            "values": {name: spread and _short(spread.mean) for name, spread in outcome.values.items()},
            "ranges": {
                name: [_short(spread.minimum), _short(spread.maximum)]
                for name, spread in outcome.values.items()
                if spread and spread.seeds > 1
            },
            "holds": outcome.holds,
        }
        for claim, outcome in outcomes
    ]
    checkpoints = [
        {
            "name": f"{record.run}, seed {record.seed}",
            "config": config_of(record),
            "checkpoint": record.checkpoint,
            "reported": _reported(record, study.specs),
        }
        for record in with_checkpoint(study, root)
    ]
    content = {"claims": claims, "checkpoints": checkpoints}
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def _short(value: float) -> float | None:
    return float(f"{value:.5g}") if math.isfinite(value) else None


def _reported(record: Record, specs: Sequence[str]) -> list[dict]:
    """F1 at N and at 4 N; at 0 for a model without steps."""
    multiples = (1,) if record.steps is None else (1, 4)
    return [
        {"spec": spec, "steps": (record.steps or 0) * multiple, "f1": _short(record.f1(spec, multiple))}
        for spec in specs
        if spec in record.quality
        for multiple in multiples
    ]
