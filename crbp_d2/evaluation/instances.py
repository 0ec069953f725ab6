"""Box and mask AP: the instances JSON of a panoptic data set, and adapters of detectron2's evaluators."""

import contextlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from unittest import mock

import numpy as np
from detectron2.evaluation import (
    CityscapesInstanceEvaluator,
    CityscapesSemSegEvaluator,
    COCOEvaluator,
    DatasetEvaluator,
    LVISEvaluator,
)
from detectron2.utils import comm

from crbp_d2.data import write_instances_json
from crbp_d2.data.images import is_file, read_json
from crbp_d2.data.instance_schema import check_instances_json, complete_instances
from crbp_d2.data.panoptic.faults import DatasetError
from crbp_d2.utils.files import write_json

# Annotations are renumbered.
IGNORED = ("duplicate-annotation",)


def set_instances(name: str, metadata: dict, folder: str) -> None:
    """Write the instances from the data set's own JSON, or without one from the PNGs, into `folder`.

    Sets the keys in `metadata` that evaluators need: `json_file`, `thing_dataset_id_to_contiguous_id`, and
    `image_numbers`, image id -> number in the JSON. pycocotools sorts ids, takes 0 for no match and opens files by the
    locale, so the ids there are the data set's own only if all are integers.

    Raises:
        DatasetError: the data set's own JSON is not one of the same images and classes.
    """
    given = metadata.get("json_file") or ""
    content = read_json(metadata.get("panoptic_json") or given)
    key = "thing_dataset_id_to_contiguous_id"
    # Without the key, models predict category ids.
    numbers = _sortable(metadata.get(key) or (category["id"] for category in content["categories"]))
    if key in metadata:
        metadata[key] = {numbers[c]: k for c, k in metadata[key].items()}
    path = metadata["json_file"] = os.path.join(folder, "instances.json")
    metadata["image_numbers"] = _sortable(image["id"] for image in content["images"])
    if comm.is_main_process():
        if is_file(given):
            data = _checked(given, metadata.get("panoptic_json"))
        else:
            write_instances_json(name, path)
            data = read_json(path)
        for entry in data["images"]:
            entry["id"] = metadata["image_numbers"][entry["id"]]
        for entry in data["categories"]:
            entry["id"] = numbers[entry["id"]]
        for number, annotation in enumerate(data["annotations"], start=1):
            image, category = metadata["image_numbers"][annotation["image_id"]], numbers[annotation["category_id"]]
            annotation.update(id=number, image_id=image, category_id=category)
        write_json(path, data)
    comm.synchronize()


def _sortable(ids: Iterable) -> dict:
    """id -> itself, or its number from 1 if numpy could not sort them all as integers."""
    ids = list(ids)
    if all(type(value) is int and abs(value) < 2**62 for value in ids):
        return {value: value for value in ids}
    return {value: number for number, value in enumerate(ids, start=1)}


def _checked(path: str, panoptic_json: str | None) -> dict:
    """The content of a detection JSON, without images that the panoptic JSON of the same data set does not have."""
    data = read_json(path)
    found = list(check_instances_json(data, path))
    if panoptic_json and not any(fault.kind in ("json", "missing-key", "value") for fault in found):
        panoptic = read_json(panoptic_json)
        known = {image["id"] for image in panoptic["images"]}
        data["images"] = [image for image in data["images"] if image["id"] in known]
        data["annotations"] = [a for a in data["annotations"] if a["image_id"] in known]
        found = list(check_instances_json(data, path, panoptic))
    without_mask = "no-mask" if panoptic_json else ""
    faults = [f for f in found if (not f.harmless or f.kind == without_mask) and f.kind not in IGNORED]
    if faults:
        raise DatasetError(faults)
    return complete_instances(data)


class IfPredicted(DatasetEvaluator):
    """An evaluator for models that predict `key`; no results for those that do not.

    Args:
        key: key of the outputs, for instance "panoptic_seg".
        evaluator: gets the inputs and outputs with this key.
    """

    def __init__(self, key: str, evaluator: DatasetEvaluator):
        self.key = key
        self.evaluator = evaluator
        self._found = self._absent = 0

    def reset(self) -> None:
        self._found = self._absent = 0
        self.evaluator.reset()

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        pairs = [pair for pair in zip(inputs, outputs, strict=True) if self.key in pair[1]]
        self._found += len(pairs)
        self._absent += len(outputs) - len(pairs)
        if pairs:
            self.evaluator.process(*map(list, zip(*pairs, strict=True)))

    def evaluate(self) -> dict | None:
        counts = comm.all_gather((self._found, self._absent))
        if any(absent for _, absent in counts) and not any(found for found, _ in counts):
            return {}
        return self.evaluator.evaluate()


class BoxAndMaskEvaluator(COCOEvaluator):
    """detectron2's COCOEvaluator; only box AP if the instances have no masks.

    The metadata may have `image_numbers`, the numbers of the images in the JSON.
    """

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        numbers = self._metadata.get("image_numbers")
        if numbers:
            inputs = [{**record, "image_id": numbers[record["image_id"]]} for record in inputs]
        if outputs and not outputs[0]["instances"].has("pred_masks"):
            self._tasks = tuple(task for task in self._tasks if task != "segm")
        super().process(inputs, outputs)


def _in1d(values: np.ndarray, among: np.ndarray) -> np.ndarray:
    return np.isin(np.ravel(values), among)


@contextmanager
def former_numpy() -> Iterator[None]:
    """Restore former names of numpy while the context is open.

    `float`, removed in numpy 1.24, is used by lvis (0.5.3), `in1d`, removed in 2.4, by cityscapesscripts (2.3.0).
    """
    with contextlib.ExitStack() as stack:
        for name, value in (("float", float), ("in1d", _in1d)):
            # A deprecated name warns when it is looked up.
            if name not in vars(np):
                stack.enter_context(mock.patch.object(np, name, value, create=True))
        yield


class _WithFormerNumpy:
    """Runs an evaluator's package with the current numpy."""

    def evaluate(self) -> dict | None:
        with former_numpy():
            return super().evaluate()  # type: ignore[misc]


class LargeVocabularyEvaluator(_WithFormerNumpy, LVISEvaluator):
    """detectron2's LVISEvaluator."""


class CityscapesPixels(_WithFormerNumpy, CityscapesSemSegEvaluator):
    """detectron2's CityscapesSemSegEvaluator."""


class CityscapesInstances(_WithFormerNumpy, CityscapesInstanceEvaluator):
    """detectron2's CityscapesInstanceEvaluator, without the file of matches that it leaves in the working directory."""

    def evaluate(self) -> dict | None:
        from cityscapesscripts.evaluation import evalInstanceLevelSemanticLabeling

        # Its cache of matches has integers of numpy, which JSON does not take.
        with mock.patch.object(evalInstanceLevelSemanticLabeling, "writeDict2JSON"):
            return super().evaluate()
