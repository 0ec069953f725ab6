"""Evaluators that adapt to what a model predicts."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import numpy as np
from detectron2.evaluation import COCOEvaluator, DatasetEvaluator, LVISEvaluator
from detectron2.utils import comm


class IfPredicted(DatasetEvaluator):
    """An evaluator for models that predict `key`; without results for those that do not.

    Args:
        key: of the outputs, for instance "panoptic_seg".
        evaluator: gets the inputs and outputs that have it.
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
    """detectron2's COCOEvaluator; box AP alone where the instances have no masks.

    Metadata with `image_numbers` give the numbers that images have in the JSON.
    """

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        numbers = self._metadata.get("image_numbers")
        if numbers:
            inputs = [{**record, "image_id": numbers[record["image_id"]]} for record in inputs]
        if outputs and not outputs[0]["instances"].has("pred_masks"):
            self._tasks = tuple(task for task in self._tasks if task != "segm")
        super().process(inputs, outputs)


class LargeVocabularyEvaluator(LVISEvaluator):
    """detectron2's LVISEvaluator, whose package also runs with a numpy of today."""

    def evaluate(self) -> dict | None:
        with numpy_float():
            return super().evaluate()


@contextmanager
def numpy_float() -> Iterator[None]:
    """While it lasts, `numpy.float` is there: the package lvis (0.5.3) asks for it, numpy dropped it in 1.24."""
    with mock.patch.object(np, "float", float, create=True):
        yield
