"""Memory of the contour models' recurrences: tensors saved for the backward pass.

python -m tools.pathfinder_study.costs        # counts what is missing in memory.json
"""

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from crbp_d2.utils.files import write_text

from .panoptic_results import RESULTS
from .records import Record, load_study
from .runs import RUNS, SCALES
from .unrolling import build

ROOT = Path(__file__).resolve().parents[2]
SAVED = RESULTS / "pathfinder_small/memory.json"
# Numbers of steps whose saved tensors are counted.
SAVED_STEPS = (5, 80)


def saved_bytes(recurrence: nn.Module, drive: Tensor, steps: int) -> int:
    """Bytes that autograd saves for the backward pass of a run, each storage once."""
    storages: dict[int, Tensor] = {}

    def hold(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
        output = recurrence(drive, steps=steps)
    assert output.state[0].requires_grad
    return sum(tensor.untyped_storage().nbytes() for tensor in storages.values())


def load_saved(root: Path) -> dict[str, dict[int, int]]:
    """run -> steps -> saved bytes."""
    path = root / SAVED
    content = json.loads(path.read_text()) if path.exists() else {}
    return {run: {int(steps): count for steps, count in counts.items()} for run, counts in content.items()}


def measure_saved(record: Record, root: Path) -> dict[int, int]:
    """Saved bytes of a record's model after SAVED_STEPS, in training on a batch of its size."""
    model = build(record, root).train()
    side = 48
    images = torch.rand(record.batch, 1, side, side, generator=torch.Generator().manual_seed(0))
    drive = model.backbone(images)["stem"].detach()
    return {steps: saved_bytes(model.sem_seg_head.recurrence, drive, steps) for steps in SAVED_STEPS}


def main() -> None:
    study = load_study(ROOT / SCALES["small"].folder / "runs")
    saved = load_saved(ROOT)
    for run in RUNS:
        record = study.first(run)
        if run not in saved and record and record.steps:
            saved[run] = measure_saved(record, ROOT)
            print(f"{run}: " + ", ".join(f"{count / 2**20:.1f} MiB at {t} steps" for t, count in saved[run].items()))
    write_text(ROOT / SAVED, json.dumps(saved, indent=1) + "\n")


if __name__ == "__main__":
    main()
