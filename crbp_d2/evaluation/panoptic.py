"""Panoptic quality, also per class."""

import contextlib
import io
import itertools
import json
import logging
import tempfile
from collections import OrderedDict
from pathlib import Path

from detectron2.evaluation import COCOPanopticEvaluator
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from panopticapi.evaluation import pq_compute
from tabulate import tabulate

GROUPS = {"All": "", "Things": "_th", "Stuff": "_st"}


class PanopticEvaluator(COCOPanopticEvaluator):
    """detectron2's panoptic evaluator, with results per class.

    `evaluate` returns {"panoptic_seg": {...}} in percent: PQ, SQ, RQ, the same with suffix _th and
    _st for things and stuff, and "PQ-name", "SQ-name", "RQ-name" of every class that occurs.
    """

    def evaluate(self) -> OrderedDict | None:
        """Results on the main process, None on the others.

        Raises:
            ValueError: an annotated image of the data set has no prediction.
        """
        comm.synchronize()
        predictions = list(itertools.chain(*comm.gather(self._predictions)))
        if not comm.is_main_process():
            return None
        with PathManager.open(self._metadata.panoptic_json) as file:
            truth = json.load(file)
        expected = {annotation["image_id"] for annotation in truth["annotations"]}
        if missing := expected - {prediction["image_id"] for prediction in predictions}:
            raise ValueError(
                f"{len(missing)} of {len(expected)} images of {self._metadata.panoptic_json} have no prediction, "
                f"for instance {min(missing)}: panoptic quality needs all of them"
            )
        return OrderedDict(panoptic_seg=self._quality(truth, predictions))

    def _quality(self, truth: dict, predictions: list[dict]) -> dict[str, float]:
        with tempfile.TemporaryDirectory(prefix="panoptic_") as folder:
            for prediction in predictions:
                Path(folder, prediction["file_name"]).write_bytes(prediction.pop("png_string"))
            predictions_json = Path(self._output_dir or folder, "panoptic_predictions.json")
            predictions_json.write_text(json.dumps({**truth, "annotations": predictions}))
            with contextlib.redirect_stdout(io.StringIO()):
                quality = pq_compute(
                    PathManager.get_local_path(self._metadata.panoptic_json),
                    str(predictions_json),
                    gt_folder=PathManager.get_local_path(self._metadata.panoptic_root),
                    pred_folder=folder,
                )
        results = {
            f"{measure}{suffix}": 100 * quality[group][measure.lower()]
            for group, suffix in GROUPS.items()
            for measure in ("PQ", "SQ", "RQ")
        }
        present = {s["category_id"] for a in (*truth["annotations"], *predictions) for s in a["segments_info"]}
        rows = []
        for category in truth["categories"]:
            if category["id"] in present:
                of_class = {m: 100 * quality["per_class"][category["id"]][m.lower()] for m in ("PQ", "SQ", "RQ")}
                results.update({f"{measure}-{category['name']}": value for measure, value in of_class.items()})
                rows.append([category["name"], *of_class.values()])
        table = tabulate(rows, headers=["class", "PQ", "SQ", "RQ"], tablefmt="pipe", floatfmt=".1f")
        logging.getLogger(__name__).info("Panoptic quality of the classes that occur:\n%s", table)
        return results
