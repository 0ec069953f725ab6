"""Solve statistics as scalars in detectron2's event storage, hence in metrics.json and TensorBoard."""

import logging

from detectron2.utils.events import EventStorage, get_event_storage, has_event_storage
from detectron2.utils.logger import log_every_n_seconds
from torch import Tensor

from crbp_d2.recurrence import RecurrenceOutput, SolveStats


def log_solve(output: RecurrenceOutput, prefix: str = "recurrence") -> None:
    """Put the statistics of a run into the current event storage, if there is one.

    steps, residual (mean over samples), unconverged (samples) and lipschitz (the penalty before
    weighting) at once. When the backward pass has run: of a Neumann series series_terms, series_ratio
    (means) and growth_events (samples whose series grew), of another transposed solve transpose_steps,
    transpose_residual (means) and transpose_unconverged (samples). An empty batch leaves only steps and
    lipschitz.
    """
    if not has_event_storage():
        return
    storage = get_event_storage()
    stats = output.stats
    storage.put_scalar(f"{prefix}/steps", stats.steps)
    storage.put_scalar(f"{prefix}/lipschitz", output.penalty.detach().item())
    if len(stats.residual):
        storage.put_scalar(f"{prefix}/residual", _mean(stats.residual))
        storage.put_scalar(f"{prefix}/unconverged", (~stats.converged).sum().item())
        stats.on_backward = lambda finished: _log_transpose(finished, storage, prefix)


def _log_transpose(stats: SolveStats, storage: EventStorage, prefix: str) -> None:
    report = stats.transpose
    if report is None:
        return
    if report.growing is None:
        storage.put_scalar(f"{prefix}/transpose_steps", _mean(report.sample_steps))
        storage.put_scalar(f"{prefix}/transpose_residual", _mean(report.residual))
        storage.put_scalar(f"{prefix}/transpose_unconverged", (~report.converged).sum().item())
        return
    growth_events = report.growing.sum().item()
    storage.put_scalar(f"{prefix}/series_terms", _mean(report.sample_steps))
    storage.put_scalar(f"{prefix}/series_ratio", _mean(report.residual))
    storage.put_scalar(f"{prefix}/growth_events", growth_events)
    if growth_events:
        log_every_n_seconds(
            logging.WARNING,
            f"{prefix}: the Neumann series grew for {growth_events} of {len(report.growing)} samples at iteration "
            f"{storage.iter}, so their gradient is not that of a fixed point; a larger penalty or a smaller learning "
            "rate keeps the recurrence contractive",
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


def _mean(values: Tensor) -> float:
    return values.double().mean().item()
