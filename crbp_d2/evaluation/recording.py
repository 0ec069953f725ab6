"""Every state of the runs of a recurrence, without a word to the head that runs it.

N: samples of the batch.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from torch import Tensor

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
