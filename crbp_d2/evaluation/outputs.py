"""Evaluators that adapt to what a model predicts."""

from detectron2.evaluation import COCOEvaluator, DatasetEvaluator
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
    """detectron2's COCOEvaluator; box AP alone where the instances have no masks."""

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        if outputs and not outputs[0]["instances"].has("pred_masks"):
            self._tasks = tuple(task for task in self._tasks if task != "segm")
        super().process(inputs, outputs)
