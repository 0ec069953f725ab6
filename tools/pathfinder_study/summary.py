"""The study in one file for programs: every claim with its values, every checkpoint with what it scores."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

from crbp_d2.utils.files import write_text

from .checkpoints import config_of, with_checkpoint
from .claims import Claim
from .comparisons import Outcome
from .records import Record, Study
from .verdicts import figure_path


def write_summary(
    path: Path, study: Study, outcomes: Sequence[tuple[Claim, Outcome]], figures: str, root: Path
) -> None:
    """Write {"claims": [...], "checkpoints": [...]}; paths in it are relative to `root`.

    Args:
        figures: folder of the figures, relative to `root`.
    """
    claims = [
        {
            "claim": claim.sentence,
            "paper": claim.paper,
            "figure": figure_path(claim, outcome, figures),
            "measure": claim.measure,
            "values": {name: _short(value) for name, value in outcome.values.items()},
            "ranges": {n: [_short(s.least), _short(s.greatest)] for n, s in outcome.spreads.items() if s.seeds > 1},
            "holds": outcome.holds,
            "earlier": outcome.earlier,
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


def _short(value: float | str | None) -> float | str | None:
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    return value


def _reported(record: Record, specs: Sequence[str]) -> list[dict]:
    """F1 at N and at 4 N, or that of a model without steps (steps 0)."""
    multiples = (1,) if record.steps is None else (1, 4)
    return [
        {"spec": spec, "steps": (record.steps or 0) * multiple, "f1": _short(record.f1(spec, multiple))}
        for spec in specs
        if spec in record.quality
        for multiple in multiples
    ]
