"""Quality per step as CSV and as a figure.

Columns are "t" and the metrics at each t, in percent, as arrays of equal length.
"""

import csv
import io
import logging
import os
from collections import OrderedDict
from collections.abc import Mapping

import numpy as np
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from crbp_d2.utils.files import write_figure, write_text

from .masks import MaskPrecisionByStep
from .panoptic import PanopticQualityByStep

# heading, column, line style, marker: told apart without colours
CURVES = (
    ("PQ", "PQ", "-", "o"),
    ("PQ things", "PQ_th", "--", "^"),
    ("PQ stuff", "PQ_st", ":", "s"),
    ("mask AP", "AP", "-.", "x"),
)
HEADINGS = {"t": "t", "PQ": "PQ", "SQ": "SQ", "RQ": "RQ", "PQ_th": "PQ_th", "PQ_st": "PQ_st", "AP": "mask AP"}


def steps_csv(columns: Mapping[str, np.ndarray]) -> str:
    """One line for each t; empty for NaN."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADINGS.values())
    for k, t in enumerate(columns["t"]):
        metrics = [columns[name][k] for name in HEADINGS if name != "t"]
        writer.writerow([t, *("" if np.isnan(value) else f"{value:.4f}" for value in metrics)])
    return text.getvalue()


def draw_steps(columns: Mapping[str, np.ndarray], path: str, marked: int) -> None:
    """Draw the curves of CURVES over t, with a vertical line at the step count `marked`, into a PNG."""
    from matplotlib.figure import Figure

    order = np.argsort(columns["t"])
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="steps", ylabel="%")
    for label, name, style, marker in CURVES:
        axes.plot(
            columns["t"][order], columns[name][order], style, marker=marker, markersize=4, color="black", label=label
        )
    axes.axvline(marked, color="0.6", linewidth=6, alpha=0.5, zorder=0, label=f"{marked} steps, as evaluated")
    axes.grid(color="0.9")
    axes.legend()
    write_figure(path, figure, dpi=150)


class StepwiseEvaluator(DatasetEvaluator):
    """The usual evaluators, and for outputs with `by_step` (see StepwisePanoptic) the metrics at each step count.

    `evaluate` adds "PQ@t", "SQ@t", "RQ@t", "PQ_th@t" and "PQ_st@t" to the results in "panoptic_seg" and "AP@t"
    to those in "segm", in percent, and writes them to `folder` as quality_per_step.csv and .png.

    Args:
        usual: evaluates the outputs themselves.
        quality, precision: evaluate each step count.
        folder: folder of the files.
        marked: step count of the usual results, marked in the figure.
    """

    def __init__(
        self,
        usual: DatasetEvaluator,
        quality: PanopticQualityByStep,
        precision: MaskPrecisionByStep,
        folder: str,
        marked: int,
    ):
        self.usual = usual
        self.by_step: tuple[PanopticQualityByStep | MaskPrecisionByStep, ...] = (quality, precision)
        self.folder = folder
        self.marked = marked

    def reset(self) -> None:
        for part in (self.usual, *self.by_step):
            part.reset()

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        self.usual.process(inputs, outputs)
        for record, output in zip(inputs, outputs, strict=True):
            for part in self.by_step:
                part.add(record["image_id"], output["by_step"])

    def evaluate(self) -> OrderedDict | None:
        """Results on the main process, None on the others."""
        results = self.usual.evaluate()
        gathered = comm.gather([part.found for part in self.by_step])
        if not comm.is_main_process():
            return None
        columns = {"t": np.array(self.by_step[0].steps)}
        for part, of_processes in zip(self.by_step, zip(*gathered, strict=True), strict=True):
            columns |= part.results({key: value for found in of_processes for key, value in found.items()})
        for name in list(HEADINGS)[1:]:
            values = {f"{name}@{t}": float(value) for t, value in zip(columns["t"], columns[name], strict=True)}
            results.setdefault("segm" if name == "AP" else "panoptic_seg", {}).update(values)
        write_text(os.path.join(self.folder, "quality_per_step.csv"), steps_csv(columns))
        path = os.path.join(self.folder, "quality_per_step.png")
        draw_steps(columns, path, self.marked)
        logging.getLogger(__name__).info("Quality per step is drawn in %s", path)
        return results
