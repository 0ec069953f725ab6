"""Panoptic quality and mask AP as they grow with the number of steps.

T: step counts.
"""

import logging
import os
from collections import OrderedDict

import numpy as np
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from crbp_d2.files import write_text

from .mask_precision import MaskPrecisionByStep
from .panoptic_quality import PanopticQualityByStep
from .report import draw_steps, steps_csv


class StepwiseEvaluator(DatasetEvaluator):
    """The usual evaluators, and for outputs with `by_step` (see StepwisePanoptic) the figures at each step count.

    `evaluate` adds "PQ@t", "SQ@t", "RQ@t", "PQ_th@t" and "PQ_st@t" to the results in "panoptic_seg" and "AP@t"
    to those in "segm", in percent, and writes them to `folder` as quality_per_step.csv and .png.

    Args:
        usual: evaluates the outputs as they are.
        quality, precision: of the step counts.
        folder: where the files go.
        marked: the step count of the usual results, marked in the figure.
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
        self.quality = quality
        self.precision = precision
        self.folder = folder
        self.marked = marked

    def reset(self) -> None:
        self.usual.reset()
        self.quality.reset()
        self.precision.reset()

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        self.usual.process(inputs, outputs)
        for record, output in zip(inputs, outputs, strict=True):
            self.quality.add(record["image_id"], output["by_step"])
            self.precision.add(record["image_id"], output["by_step"])

    def evaluate(self) -> OrderedDict | None:
        """Results on the main process, None on the others."""
        results = self.usual.evaluate()
        gathered = comm.gather((self.quality.counts, self.precision.found))
        if not comm.is_main_process():
            return None
        counts, found = {}, {}
        for of_images, detections in gathered:
            counts |= of_images
            found |= detections
        columns = {
            "t": np.array(self.quality.steps),
            **self.quality.results(counts),
            "AP": self.precision.results(found),
        }
        for name in ("PQ", "SQ", "RQ", "PQ_th", "PQ_st"):
            results["panoptic_seg"].update(_by_step(name, columns))
        results.setdefault("segm", {}).update(_by_step("AP", columns))
        write_text(os.path.join(self.folder, "quality_per_step.csv"), steps_csv(columns))
        path = os.path.join(self.folder, "quality_per_step.png")
        draw_steps(columns, path, self.marked)
        logging.getLogger(__name__).info("Quality per step is drawn in %s", path)
        return results


def _by_step(name: str, columns: dict[str, np.ndarray]) -> dict[str, float]:
    return {f"{name}@{t}": float(value) for t, value in zip(columns["t"], columns[name], strict=True)}
