"""Results as tables in the model zoo's form, and as a file."""

import json
import math
import os
from collections.abc import Mapping

from tabulate import tabulate

# title, task, metric
COLUMNS = (
    ("box AP", "bbox", "AP"),
    ("mask AP", "segm", "AP"),
    ("PQ", "panoptic_seg", "PQ"),
    ("SQ", "panoptic_seg", "SQ"),
    ("RQ", "panoptic_seg", "RQ"),
    ("PQ things", "panoptic_seg", "PQ_th"),
    ("PQ stuff", "panoptic_seg", "PQ_st"),
    ("mIoU", "sem_seg", "mIoU"),
)
PATHFINDER_COLUMNS = (
    ("F1", "F1"),
    ("IoU", "IoU"),
    ("precision", "precision"),
    ("recall", "recall"),
    ("balanced accuracy", "balanced_accuracy"),
    ("F1 pooled", "F1_pooled"),
    ("IoU pooled", "IoU_pooled"),
)


def results_table(results: Mapping[str, Mapping[str, float]], name: str) -> str:
    """A Markdown table with one row, in percent; "-" where a figure is missing or not a number."""
    row = [results.get(task, {}).get(metric, math.nan) for _, task, metric in COLUMNS]
    cells = ["-" if math.isnan(value) else f"{value:.2f}" for value in row]
    return tabulate(
        [[name, *cells]], headers=["", *(title for title, _, _ in COLUMNS)], tablefmt="pipe", disable_numparse=True
    )


def pathfinder_table(results: Mapping[str, Mapping[str, Mapping[str, float]]], steps: int | None) -> str:
    """A Markdown table with a row for every data set and step count, fractions.

    Args:
        results: data set -> results of PathfinderEvaluator.
        steps: t of the scores without a suffix; None where the model has no steps.
    """
    rows = []
    for name, result in results.items():
        values = result["pathfinder"]
        by_step = {int(key.split("@")[1]): f"@{key.split('@')[1]}" for key in values if "@" in key}
        if steps not in by_step:
            by_step = {steps: "", **by_step}
        for t, suffix in sorted(by_step.items(), key=lambda item: item[0] or 0):
            scores = [f"{values[metric + suffix]:.3f}" for _, metric in PATHFINDER_COLUMNS]
            rows.append([name, "-" if t is None else t, *scores])
    headers = ["", "t", *(title for title, _ in PATHFINDER_COLUMNS)]
    return tabulate(rows, headers=headers, tablefmt="pipe", disable_numparse=True)


def write_results(results: Mapping[str, Mapping[str, float]], folder: str) -> str:
    """Write every figure to `folder`/results.json, null for what is not a number; return the path."""
    finite = {
        task: {metric: float(value) if math.isfinite(value) else None for metric, value in metrics.items()}
        for task, metrics in results.items()
    }
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, "results.json")
    with open(f"{path}.tmp", "w") as file:
        json.dump(finite, file, indent=1, sort_keys=True)
        file.write("\n")
    os.replace(f"{path}.tmp", path)
    return path
