"""What an earlier run left in an output folder."""

import logging
import os
from pathlib import Path

from crbp_d2.checkpoint.loading import LAST, newest_first

# Beside the checkpoints.
FILES = (LAST, "metrics.json", "model_best.pth", "model_ema.pth")


def set_aside(folder: str) -> Path | None:
    """Move the checkpoints and metrics of an earlier run into a sub-folder, so that none is taken for a new run's.

    Files of weights that are no checkpoints of a training stay. Returns the sub-folder, None where there is nothing
    to move.
    """
    damaged: dict[str, str] = {}
    checkpoints = [*newest_first(folder, damaged), *damaged]
    if not checkpoints:
        return None
    number = 1
    while (place := Path(folder, f"earlier_run_{number}")).exists():
        number += 1
    place.mkdir()
    for path in (*checkpoints, *(os.path.join(folder, name) for name in FILES)):
        if os.path.exists(path):
            os.replace(path, place / os.path.basename(path))
    logging.getLogger(__name__).warning(
        "%s holds an earlier run; its checkpoints and metrics are now in %s (--resume continues a run)",
        folder, place,
    )  # fmt: skip
    return place
