"""Common parts of the recurrent heads, and their solve statistics as scalars in detectron2's event storage."""

import logging
from weakref import WeakKeyDictionary

import torch
from detectron2.utils.events import EventStorage, get_event_storage, has_event_storage
from detectron2.utils.logger import log_every_n_seconds
from torch import Tensor, nn

from crbp_d2.recurrence import Recurrence, RecurrenceOutput, SolveStats
from crbp_d2.recurrence.state import State
from crbp_d2.utils.errors import ContradictionError, check_choice, check_number, check_whole

# Of the heads of detectron2's models, by its names.
READOUT_NORMS = ("", "BN", "SyncBN", "GN")
# Iterations between two writings of detectron2's writers, which read the scalars.
PERIOD = 20
# Scalars on a device that the storage does not have yet: name, iteration and value.
_PENDING: WeakKeyDictionary[EventStorage, list[tuple[str, int, Tensor]]] = WeakKeyDictionary()


class RecurrentHead(nn.Module):
    """Mixin of a head that runs a recurrence, weighs its penalty and may take other numbers of steps in inference."""

    recurrence: Recurrence
    penalty_weight: float
    test_steps: int | None

    def set_recurrence(self, recurrence: Recurrence, penalty_weight: float, test_steps: int | None) -> None:
        """Check and keep the arguments that all recurrent heads take.

        Raises:
            SettingError: a negative or infinite weight, test_steps < 1.
            ContradictionError: no weight for the penalty that the recurrence has.
        """
        owner = type(self).__name__
        check_number(owner, "[0, inf)", penalty_weight=penalty_weight)
        if test_steps is not None:
            check_whole(owner, test_steps=test_steps)
        if penalty_weight == 0 and recurrence.penalty is not None:
            raise ContradictionError(
                {"penalty_weight": penalty_weight, "recurrence": recurrence.penalty},
                f"{recurrence.penalty!r} would have no effect; give it a positive weight, or choose a rule without a "
                "penalty, such as 'rbp' in place of 'crbp' and 'bptt' in place of 'cbptt'",
                owner,
            )
        self.recurrence = recurrence
        self.penalty_weight = penalty_weight
        self.test_steps = test_steps

    def solve(self, drive: Tensor, state: State | None = None) -> RecurrenceOutput:
        """Run the recurrence; in inference `test_steps` steps."""
        return self.recurrence(drive, state=state, steps=None if self.training else self.test_steps)

    def weighted_penalty(self, output: RecurrenceOutput) -> Tensor:
        """The penalty's term of the loss."""
        return output.penalty * self.penalty_weight


def check_readout_norm(head: nn.Module, norm: str, channels: int) -> None:
    """Check a norm that detectron2's get_norm builds.

    Raises:
        SettingError: another name.
        ContradictionError: "GN", which is of 32 groups there, on channels that these do not divide.
    """
    owner = type(head).__name__
    check_choice(owner, READOUT_NORMS, readout_norm=norm)
    if norm == "GN" and channels % 32:
        raise ContradictionError(
            {"readout_norm": norm, "channels": channels}, "detectron2's group norm has 32 groups; choose BN", owner
        )


def recurrences(model: nn.Module) -> dict[str, Recurrence]:
    """The recurrences of a model by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Recurrence)}


def recurrent_heads(model: nn.Module) -> list[nn.Module]:
    """The modules of a model that hold a recurrence and read out its state."""
    return [module for module in model.modules() if isinstance(getattr(module, "recurrence", None), Recurrence)]


def log_solve(output: RecurrenceOutput, prefix: str = "recurrence") -> None:
    """Put the statistics of a run into the current event storage, if there is one.

    At once: steps, residual (mean over samples), unconverged (samples) and lipschitz (the penalty before
    weighting). After the backward pass, for a Neumann series series_terms, series_ratio (means) and growth_events
    (samples whose series grew), for another transposed solve transpose_steps, transpose_residual (means) and
    transpose_unconverged (samples). An empty batch leaves only steps and lipschitz. Values on a device reach the
    storage once in PERIOD iterations, in one read.
    """
    if not has_event_storage():
        return
    storage = get_event_storage()
    stats = output.stats
    storage.put_scalar(f"{prefix}/steps", stats.steps)
    values = {"lipschitz": output.penalty.detach()}
    if len(stats.residual):
        values |= {"residual": _mean(stats.residual), "unconverged": (~stats.converged).sum()}
        stats.on_backward = lambda finished: _log_transpose(finished, storage, prefix)
    _put(storage, prefix, values)


def _log_transpose(stats: SolveStats, storage: EventStorage, prefix: str) -> None:
    report = stats.transpose
    if report is None:
        return
    if report.growing is None:
        values = {"transpose_steps": _mean(report.sample_steps), "transpose_residual": _mean(report.residual),
                  "transpose_unconverged": (~report.converged).sum()}  # fmt: skip
    else:
        values = {"series_terms": _mean(report.sample_steps), "series_ratio": _mean(report.residual),
                  "growth_events": report.growing.sum()}  # fmt: skip
    _put(storage, prefix, values)


def _put(storage: EventStorage, prefix: str, values: dict[str, Tensor]) -> None:
    pending = _PENDING.setdefault(storage, [])
    pending += [(f"{prefix}/{name}", storage.iter, value.detach()) for name, value in values.items()]
    # A look at values on the host waits for nothing.
    if all(value.device.type == "cpu" for value in values.values()) or (storage.iter + 1) % PERIOD == 0:
        flush(storage)


def flush(storage: EventStorage) -> None:
    """Put the scalars that are still on a device into the storage."""
    pending = _PENDING.pop(storage, [])
    numbers = torch.stack([value.double() for *_, value in pending]).tolist() if pending else []
    for (name, iteration, _), number in zip(pending, numbers, strict=True):
        storage.put_scalar(name, number, cur_iter=iteration)
        if name.endswith("/growth_events") and number:
            log_every_n_seconds(
                logging.WARNING,
                f"{name.rpartition('/')[0]}: the Neumann series of {number:.0f} samples grew at iteration {iteration}, "
                "so their gradient is not that of a fixed point; a larger penalty or a smaller learning rate keeps "
                "the recurrence contractive",
                n=60,
                name=__name__,
            )


def summarize(stats: SolveStats) -> str:
    """One line for error messages."""
    if not len(stats.residual):
        return f"{stats.steps} steps, empty batch"
    parts = [f"{stats.steps} steps", f"largest residual {stats.residual.max().item():.3g}"]
    if stats.nonfinite_step.any():
        bad = stats.nonfinite_step[stats.nonfinite_step > 0]
        parts.append(f"{len(bad)} of {len(stats.residual)} states not finite, first at step {bad.min().item()}")
    report = stats.transpose
    if report is not None and report.growing is not None:
        parts.append(f"last series term at most {report.residual.max().item():.3g} of the first")
        parts.append(f"{report.growing.sum().item()} of {len(report.growing)} series growing")
    elif report is not None:
        parts.append(f"transposed solve: {report.steps} steps, largest residual {report.residual.max().item():.3g}")
    return ", ".join(parts)


def _mean(values: Tensor) -> Tensor:
    return values.double().mean()
