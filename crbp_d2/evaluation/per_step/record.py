"""Every state of the runs of a recurrence, without a word to the head that runs it.

N: samples of the batch.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from detectron2.config import CfgNode
from detectron2.modeling.postprocessing import sem_seg_postprocess
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from crbp_d2.recurrence import Recurrence, RecurrenceOutput
from crbp_d2.recurrence.state import State


class StateRecord:
    """What `record_states` has seen.

    outputs: of every run so far, `states` filled.
    """

    def __init__(self) -> None:
        self.outputs: list[RecurrenceOutput] = []

    @property
    def states(self) -> list[State]:
        """The state after every step of the last run.

        Raises:
            ValueError: nothing has run yet.
        """
        return self._last().states or []

    def after(self, steps: int) -> State:
        """The state after `steps` steps of the last run; one that has stopped stays where it was.

        Raises:
            ValueError: nothing has run yet.
        """
        return self._last().after(steps)

    def _last(self) -> RecurrenceOutput:
        if not self.outputs:
            raise ValueError("record_states: the recurrence has not run yet")
        return self.outputs[-1]


@contextmanager
def record_states(recurrence: Recurrence, steps: int = 0) -> Iterator[StateRecord]:
    """Record every state while the context is open.

        with record_states(model.sem_seg_head.recurrence, steps=40) as run:
            outputs = model(inputs)
        logits = model.sem_seg_head.read_out(run.after(40)[0])

    Args:
        recurrence: of any head, or alone.
        steps: runs take at least as many; whoever runs the recurrence still gets the state after the number it
            asked for.
    """
    seen, original = StateRecord(), recurrence.forward

    longest = steps

    def forward(
        drive: Tensor, state: State | None = None, steps: int | None = None, record: bool = False
    ) -> RecurrenceOutput:
        asked = recurrence.solver.next_steps() if steps is None else steps
        output = original(drive, state, max(asked, longest), record=True)
        seen.outputs.append(output)
        every = record or recurrence.supervision == "every"
        state = output.after(asked)
        supervised = output.supervised if recurrence.supervision == "every" else [(1.0, state)]
        return replace(output, state=state, supervised=supervised, states=output.states if every else None)

    recurrence.forward = forward  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        del recurrence.forward


def check_steps_to_evaluate(cfg: CfgNode) -> None:
    """Check TEST.STEPS_TO_EVALUATE, that the model has steps and that it takes all of them.

    Raises:
        ValueError: names the key and its value.
    """
    steps, model = cfg.TEST.STEPS_TO_EVALUATE, cfg.MODEL
    if not steps:
        return
    if model.SEM_SEG_HEAD.NAME != "ContourSegHead" and not (
        model.MASK_ON and model.ROI_MASK_HEAD.NAME == "RecurrentMaskHead"
    ):
        heads = (
            f"{model.ROI_MASK_HEAD.NAME} and {model.SEM_SEG_HEAD.NAME}" if model.MASK_ON else model.SEM_SEG_HEAD.NAME
        )
        raise ValueError(
            f"TEST.STEPS_TO_EVALUATE is {tuple(steps)}, but only models with the ContourSegHead or the "
            f"RecurrentMaskHead are evaluated after other step counts, not those with {heads}: leave it empty"
        )
    if not all(isinstance(t, int) and t >= 1 for t in steps):
        raise ValueError(f"TEST.STEPS_TO_EVALUATE is {tuple(steps)}; allowed: whole numbers from 1")
    if model.RECURRENCE.EARLY_STOP.ENABLED:
        raise ValueError(
            f"TEST.STEPS_TO_EVALUATE is {tuple(steps)}, but MODEL.RECURRENCE.EARLY_STOP.ENABLED is True: a sample that "
            "has stopped takes no further steps, so set one of them to () or False"
        )


class StepwiseSegmentor(nn.Module):
    """A segmentor with a contour head, whose outputs hold the predictions after other step counts too.

    Each output has, beside `sem_seg`, `sem_seg_by_step`: {t: 2 x H x W}. Stem and head run once.

    Args:
        model: a SemanticSegmentor with a ContourSegHead, or that in DistributedDataParallel.
        steps: each t, at least 1; none leaves the outputs as they are.

    Raises:
        ValueError: a head without steps.
    """

    def __init__(self, model: nn.Module, steps: tuple[int, ...]):
        super().__init__()
        self.model = model.module if isinstance(model, DistributedDataParallel) else model
        self.steps = tuple(steps)
        if self.steps and not hasattr(self.model.sem_seg_head, "recurrence"):
            raise ValueError(f"{type(self.model.sem_seg_head).__name__} has no steps to evaluate")

    def forward(self, inputs: list[dict]) -> list[dict]:
        if not self.steps:
            return self.model(inputs)
        head = self.model.sem_seg_head
        with record_states(head.recurrence, max(self.steps)) as run:
            outputs = self.model(inputs)
        by_step = {t: head.read_out(run.after(t)[0]) for t in self.steps}
        for k, (record, output) in enumerate(zip(inputs, outputs, strict=True)):
            size = record["image"].shape[-2:]
            height, width = record.get("height", size[0]), record.get("width", size[1])
            output["sem_seg_by_step"] = {
                t: sem_seg_postprocess(logits[k], size, height, width) for t, logits in by_step.items()
            }
        return outputs
