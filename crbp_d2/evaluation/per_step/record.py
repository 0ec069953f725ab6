"""States of a recurrence after chosen steps, observed by hooks: the head that runs it notices nothing.

N: samples of the batch; T: step counts.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from operator import attrgetter
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling.postprocessing import sem_seg_postprocess
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from crbp_d2.modeling.heads import recurrent_heads
from crbp_d2.recurrence import Recurrence, RecurrenceOutput
from crbp_d2.recurrence.state import State


class _Run:
    """One run: shows each state to all records of the recurrence and keeps what its caller asked for."""

    def __init__(self, asked: int | None, record: bool):
        self.asked, self.record = asked, record
        self.count = 0
        self.records: list[StateRecord] = []
        self.states: list[State] = []

    def __call__(self, state: State) -> None:
        self.count += 1
        if self.record and self.count <= (self.asked or math.inf):
            self.states.append(state)
        elif self.count == self.asked:
            self.states = [state]
        for record in self.records:
            record._see(self, state)

    def result(self, output: RecurrenceOutput) -> RecurrenceOutput:
        """The output of a run that ended after the steps asked for."""
        if self.asked is None or self.asked >= self.count:
            return replace(output, states=[*self.states[:-1], output.state]) if self.record else output
        states = output.states[: self.asked] if output.states else self.states
        every = output.states is not None
        supervised = [(1 / len(states), state) for state in states] if every else [(1.0, states[-1])]
        return replace(output, state=states[-1], supervised=supervised, states=states if self.record or every else None)


class StateRecord:
    """States kept by `record_states`.

    outputs: one per run, `states` holding what was kept, in the order of the steps.
    """

    def __init__(self, recurrence: Recurrence, steps: Sequence[int] | int, read: Callable[[State], Any] | None):
        self.outputs: list[RecurrenceOutput] = []
        self._recurrence: Recurrence | None = recurrence
        self._wanted = None if isinstance(steps, int) else frozenset(steps)
        self._longest = steps if isinstance(steps, int) else max(steps)
        self._read = read
        self._kept: dict[int, Any] = {}
        self._end = 0

    @property
    def states(self) -> list:
        """States of the last run, or the results of `read`, in the order of the steps.

        Raises:
            ValueError: no run yet.
        """
        self._check()
        return list(self._kept.values())

    def after(self, steps: int) -> Any:
        """The state (or what was read from it) after `steps` steps of the last run; its end, if it stopped earlier.

        Raises:
            ValueError: no run yet, or a step that was not kept.
        """
        self._check()
        step = min(steps, self._end)
        if step not in self._kept:
            raise ValueError(f"record_states: the state after {steps} steps was not kept, only {sorted(self._kept)}")
        return self._kept[step]

    def _check(self) -> None:
        if not self.outputs:
            raise ValueError("record_states: the recurrence has not run yet")

    def __getstate__(self) -> dict:
        """A copy of the recurrence runs unobserved."""
        return {"_recurrence": None}

    def _before(self, recurrence: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        if recurrence is not self._recurrence:
            return None
        call = {**dict(zip(("state", "steps", "record"), args[1:], strict=False)), **kwargs}
        run = call.get("record")
        if not isinstance(run, _Run):
            run = call["record"] = _Run(call.get("steps"), bool(run))
        run.records.append(self)
        if self._longest:
            if run.asked is None:
                run.asked = recurrence.solver.next_steps() if recurrence.training else recurrence.solver.steps
            if not recurrence.solver.stops_at_tol:
                call["steps"] = max(run.asked, self._longest, call.get("steps") or 0)
        self._kept = {}
        return args[:1], call

    def _see(self, run: _Run, state: State) -> None:
        limit = max(run.asked, self._longest) if run.asked else math.inf
        if run.count in self._wanted if self._wanted is not None else run.count <= limit:
            self._keep(run.count, state)
        self._end = int(min(run.count, limit))

    @torch.no_grad()
    def _keep(self, step: int, state: State) -> None:
        self._kept[step] = self._read(state) if self._read else state

    def _after(
        self, recurrence: nn.Module, args: tuple, kwargs: dict, output: RecurrenceOutput
    ) -> RecurrenceOutput | None:
        if recurrence is not self._recurrence:
            return None
        run = kwargs["record"]
        seen, recorded = run, output
        if run.asked and recurrence.solver.stops_at_tol and self._longest > run.asked <= run.count:
            seen, recorded = self._longer(recurrence, args[0], kwargs.get("state"))
        # The result differs from the last state that was seen: it has a graph, and is the best one of a solver that
        # stops at a tolerance.
        if self._end == seen.count and (self._wanted is None or self._longest >= seen.count):
            self._keep(seen.count, recorded.state)
        self.outputs.append(replace(recorded, states=list(self._kept.values())))
        return run.result(output) if run.records[0] is self else None

    @torch.no_grad()
    def _longer(self, recurrence: Recurrence, drive: Tensor, state: State | None) -> tuple[_Run, RecurrenceOutput]:
        """A second run, since a solver that stops at a tolerance has another result after fewer steps."""
        run, stats = _Run(self._longest, False), recurrence.last_stats
        run.records, self._kept = [self], {}
        output = recurrence.forward(drive, state, self._longest, run)
        recurrence.last_stats = stats
        return run, output


@contextmanager
def record_states(
    recurrence: Recurrence, steps: Sequence[int] | int = 0, read: Callable[[State], Any] | None = None
) -> Iterator[StateRecord]:
    """Record the states of a recurrence while the context is open; contexts nest.

        with record_states(model.sem_seg_head.recurrence, steps=(10, 40)) as run:
            outputs = model(inputs)
        logits = model.sem_seg_head.read_out(run.after(40)[0])

    The caller of the recurrence still gets the state after the number of steps that it asked for; it has a gradient
    only where no more steps are run than that.

    Args:
        recurrence: a Recurrence, in a head or by itself.
        steps: step counts, of which only the states are kept; or one number, to keep every state and to run this many
            steps or more.
        read: a function of a state whose result is kept in place of the state.
    """
    record = StateRecord(recurrence, steps, read)
    handles = (
        recurrence.register_forward_pre_hook(record._before, with_kwargs=True),
        # The first context restores the caller's output, after all others have seen it.
        recurrence.register_forward_hook(record._after, with_kwargs=True, prepend=True),
    )
    try:
        yield record
    finally:
        for handle in handles:
            handle.remove()


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


class Stepwise(nn.Module):
    """A model whose outputs hold predictions after other step counts, too.

    Args:
        model: the model, or that in DistributedDataParallel.
        steps: T step counts of at least 1; none leaves the outputs as they are.
        head: name of the head whose recurrence is read out after these steps.

    Raises:
        ValueError: a head without a recurrence.
    """

    def __init__(self, model: nn.Module, steps: Sequence[int], head: str):
        super().__init__()
        self.model = model.module if isinstance(model, DistributedDataParallel) else model
        self.steps = tuple(steps)
        if self.steps:
            self.head = attrgetter(head)(self.model)
            if self.head not in recurrent_heads(self.head):
                raise ValueError(f"{type(self.head).__name__} has no steps to evaluate")


class StepwiseSegmentor(Stepwise):
    """A segmentor with a contour head; `sem_seg_by_step` of each output is {t: 2 x H x W}. Stem and head run once.

    Args:
        model, steps: see Stepwise; the model is a SemanticSegmentor with a ContourSegHead.
    """

    def __init__(self, model: nn.Module, steps: Sequence[int]):
        super().__init__(model, steps, "sem_seg_head")

    def forward(self, inputs: list[dict]) -> list[dict]:
        if not self.steps:
            return self.model(inputs)
        with record_states(self.head.recurrence, self.steps, lambda state: self.head.read_out(state[0])) as run:
            outputs = self.model(inputs)
        for k, (record, output) in enumerate(zip(inputs, outputs, strict=True)):
            size = record["image"].shape[-2:]
            height, width = record.get("height", size[0]), record.get("width", size[1])
            output["sem_seg_by_step"] = {
                t: sem_seg_postprocess(run.after(t)[k], size, height, width) for t in self.steps
            }
        return outputs
