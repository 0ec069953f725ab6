"""Evaluators that adapt to what a model predicts."""

import contextlib
from collections.abc import Iterator
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


def _in1d(values: np.ndarray, among: np.ndarray) -> np.ndarray:
    return np.isin(np.ravel(values), among)


@contextmanager
def former_numpy() -> Iterator[None]:
    """While it lasts, numpy has again what packages of scores ask for.

    That is `float` for lvis (0.5.3), gone in numpy 1.24, and `in1d` for cityscapesscripts (2.3.0), gone in 2.4.
    """
    with contextlib.ExitStack() as stack:
        for name, value in (("float", float), ("in1d", _in1d)):
            # A deprecated name warns when it is looked up.
            if name not in vars(np):
                stack.enter_context(mock.patch.object(np, name, value, create=True))
        yield


class _WithFormerNumpy:
    """Has an evaluator's package run with a numpy of today."""

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

        # What it writes for the next time holds integers of numpy, which its JSON does not take.
        with mock.patch.object(evalInstanceLevelSemanticLabeling, "writeDict2JSON"):
            return super().evaluate()
