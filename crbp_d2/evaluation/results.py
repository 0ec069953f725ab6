"""Results as tables in the model zoo's form, and as a file."""

import math
import os
from collections.abc import Iterable, Mapping, Sequence

from tabulate import tabulate

from crbp_d2.utils.files import write_json

MOST_NAMES = 16


class UnknownFigure(ValueError):
    """A setting that names a metric which an evaluation does not have."""


def listed(names: Iterable[str]) -> str:
    """Names of metrics for a message, without those of classes and step counts if there are many."""
    names = sorted(names)
    few = [name for name in names if "-" not in name and "@" not in name] if len(names) > MOST_NAMES else names
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return f"; it has {', '.join(few[:MOST_NAMES])}{more}"


def check_expected(expected: Sequence[Sequence], results: Mapping[str, Mapping]) -> None:
    """Check that an evaluation has the metrics that TEST.EXPECTED_RESULTS names.

    Raises:
        UnknownFigure: the first that is missing.
    """
    known = [f"{task}/{metric}" for task, of_task in results.items() for metric in of_task]
    for task, metric, *_ in expected:
        if f"{task}/{metric}" not in known:
            raise UnknownFigure(
                f"TEST.EXPECTED_RESULTS names {task}/{metric}, which the evaluation does not measure{listed(known)}"
            )


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
# Of each step count: the panoptic ones and mask AP.
STEP_COLUMNS = (*COLUMNS[2:7], COLUMNS[1])
PATHFINDER_COLUMNS = (
    ("F1", "F1"),
    ("IoU", "IoU"),
    ("precision", "precision"),
    ("recall", "recall"),
    ("balanced accuracy", "balanced_accuracy"),
    ("F1, micro-averaged", "F1_pooled"),
    ("IoU, micro-averaged", "IoU_pooled"),
)


def results_table(results: Mapping[str, Mapping[str, float]], name: str) -> str:
    """A Markdown table with one row, in percent; "-" for a metric that is missing or NaN."""
    return _table(["", *(title for title, _, _ in COLUMNS)], [[name, *_cells(results, COLUMNS)]])


def metric_tables(results: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Markdown tables: `results_table` of every data set, and one row per step count if there are any.

    Args:
        results: data set -> results of its evaluators.
    """
    tables = []
    for name, result in results.items():
        tables.append(results_table(result, name))
        steps = [key.split("@")[1] for key in result.get("panoptic_seg", {}) if key.startswith("PQ@")]
        if steps:
            headers = ["t", *(title for title, _, _ in STEP_COLUMNS)]
            rows = [[t, *_cells(result, STEP_COLUMNS, f"@{t}")] for t in sorted(steps, key=int)]
            tables.append(_table(headers, rows))
    return "\n\n".join(tables)


def _cells(results: Mapping[str, Mapping[str, float]], columns: tuple, suffix: str = "") -> list[str]:
    values = [results.get(task, {}).get(metric + suffix, math.nan) for _, task, metric in columns]
    if columns is COLUMNS and "IoU" in results.get("sem_seg", {}):  # Cityscapes' name of mIoU
        values[-1] = results["sem_seg"]["IoU"]
    return ["-" if math.isnan(value) else f"{value:.2f}" for value in values]


def _table(headers: list[str], rows: Sequence[Sequence[object]]) -> str:
    return tabulate(rows, headers=headers, tablefmt="pipe", disable_numparse=True)


def pathfinder_table(results: Mapping[str, Mapping[str, Mapping[str, float]]], steps: int | None) -> str:
    """A Markdown table with a row for every data set and step count, fractions.

    Args:
        results: data set -> results of PathfinderEvaluator.
        steps: t of the scores without a suffix; None for a model without steps.
    """
    rows = []
    for name, result in results.items():
        values = result["pathfinder"]
        by_step = {steps: ""} | {int(key.split("@")[1]): f"@{key.split('@')[1]}" for key in values if "@" in key}
        for t, suffix in sorted(by_step.items(), key=lambda item: item[0] or 0):
            scores = [f"{values[metric + suffix]:.3f}" for _, metric in PATHFINDER_COLUMNS]
            rows.append([name, "-" if t is None else t, *scores])
    headers = ["", "t", *(title for title, _ in PATHFINDER_COLUMNS)]
    return _table(headers, rows)


def write_results(results: Mapping[str, Mapping[str, float]], folder: str) -> str:
    """Write every metric to `folder`/results.json, null for NaN; return the path."""
    numbers = {task: {metric: float(value) for metric, value in metrics.items()} for task, metrics in results.items()}
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, "results.json")
    write_json(path, numbers, indent=1, sort_keys=True)
    return path
