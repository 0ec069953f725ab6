"""Adapters of evaluators to models and to other packages."""

import numpy as np
from detectron2.evaluation import DatasetEvaluator

from crbp_d2.evaluation.instances import IfPredicted, former_numpy


class Counting(DatasetEvaluator):
    def reset(self):
        self.seen = []

    def process(self, inputs, outputs):
        self.seen += inputs

    def evaluate(self):
        return {"seen": self.seen}


def test_an_evaluator_sees_the_outputs_that_have_its_key():
    evaluator = IfPredicted("instances", Counting())
    evaluator.reset()
    evaluator.process([1, 2, 3], [{"instances": 0}, {"sem_seg": 0}, {"instances": 0}])
    assert evaluator.evaluate() == {"seen": [1, 3]}
    evaluator.reset()
    evaluator.process([1], [{"sem_seg": 0}])
    assert evaluator.evaluate() == {}
    # No image at all: the evaluator's own result counts.
    evaluator.reset()
    assert evaluator.evaluate() == {"seen": []}


def test_former_names_of_numpy_are_restored():
    before = {name: vars(np).get(name) for name in ("float", "in1d")}
    assert before["float"] is None
    with former_numpy():
        assert vars(np)["float"] is float
        assert vars(np)["in1d"](np.array([[1, 2], [3, 4]]), [2, 4]).tolist() == [False, True, False, True]
    assert {name: vars(np).get(name) for name in before} == before
