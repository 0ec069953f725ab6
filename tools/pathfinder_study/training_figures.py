"""Figures of training and of the trained model's stability. N: steps trained with."""

import numpy as np

from .figure_style import (
    CONVLSTM,
    FEEDFORWARD,
    HGRU,
    Drawing,
    around,
    legend_below,
    line_style,
    name_of,
    panels,
    present,
)
from .records import Study

# title, part of the record, key, logarithmic
TRAINING = (
    ("training loss", "curve", "loss", True),
    ("F1 at N", "probe", "f1", False),
    ("F1 at 4 N", "probe", "f1_far", False),
    ("change of state in step N", "probe", "residual", True),
    ("penalty at N", "probe", "penalty", True),
)
SMALLEST = 1e-6  # minimum of a logarithmic axis


def training(study: Study) -> Drawing | None:
    """Loss, and metrics on fixed validation stimuli, in training: mean over seeds."""
    runs = [run for run in present(study, (*HGRU, *FEEDFORWARD)) if study.first(run).curve or study.first(run).probe]
    if not runs:
        return None
    figure, axes = panels(2, 3)
    rows = []
    for axis, (title, part, key, logarithmic) in zip(axes.flat, TRAINING, strict=False):
        for run in runs:
            # Only runs of the same length are averaged.
            found = [getattr(record, part) for record in study[run]]
            curves = [c for c in found if key in c and "iteration" in c and len(c[key]) == len(found[0].get(key, ()))]
            if not curves:
                continue
            mean = np.mean([curve[key] for curve in curves], axis=0)
            if not np.isfinite(mean).any():
                continue
            shown = np.maximum(mean, SMALLEST) if logarithmic else mean
            axis.plot(
                curves[0]["iteration"], shown, **(line_style(run) | {"markevery": max(len(mean) // 6, 1), "alpha": 0.9})
            )
            rows += [
                [title, run, int(i), float(v), len(curves)]
                for i, v in zip(curves[0]["iteration"], mean, strict=True)
            ]  # fmt: skip
        axis.set(title=title, xlabel="iteration")
        if logarithmic:
            axis.set_yscale("log")
        else:
            axis.set_ylim(around([row[3] for row in rows if row[0] == title]))
    if not rows:
        return None
    axes[-1, -1].axis("off")
    handles = {}
    for axis in axes.flat:
        handles |= {label: handle for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    axes[-1, -1].legend(handles.values(), handles.keys(), loc="center", frameon=False)
    return Drawing(figure, ["quantity", "run", "iteration", "value", "seeds"], rows)


def stability(study: Study) -> Drawing | None:
    """Spectral radius at 4 N, contraction and change of the state along the run; seed 0."""
    runs = [run for run in present(study, (*HGRU, *CONVLSTM)) if study.first(run).stability]
    if not runs:
        return None
    figure, axes = panels(1, 3)
    figure.set_size_inches(figure.get_figwidth(), 1.4 * figure.get_figheight())
    radius, contraction, residual = axes[0]
    rows = []
    for place, run in enumerate(runs):
        style = line_style(run) | ({"color": "0.55"} if run in CONVLSTM else {})
        points = np.concatenate([r.stability["spectral_radius"] for r in study[run] if "spectral_radius" in r.stability]
                                or [np.empty(0)])  # fmt: skip
        sideways = place + np.linspace(-0.2, 0.2, len(points)) if len(points) > 1 else [place] * len(points)
        radius.plot(sideways, points, **(style | {"linestyle": "", "markersize": 4}))
        rows += [["spectral radius", run, "", float(value)] for value in points]
        record = study.first(run)
        for axis, key, first in ((contraction, "contraction", 2), (residual, "residual", 1)):
            values = record.stability.get(key, np.empty(0))
            t = np.arange(first, first + len(values))
            drawn = np.maximum(values, SMALLEST) if key == "residual" else values
            every = max(len(t) // 6, 1)
            axis.plot(t / record.steps, drawn, **(style | {"markevery": (every // 2, every), "markersize": 4}))
            rows += [[key, run, int(step), float(value)] for step, value in zip(t, values, strict=True)]
    radius.set_xticks(range(len(runs)), [name_of(run) for run in runs], rotation=60, ha="right", fontsize=8)
    radius.axhline(1, color="0.4", linewidth=1)
    radii = [row[-1] for row in rows if row[0] == "spectral radius" and np.isfinite(row[-1])]
    low, high = (min(radii), max(radii)) if radii else (1, 1)
    radius.set(title="spectral radius at 4 N", ylim=(min(low, 1) - 0.05, max(high, 1) + 0.05))
    contraction.axhline(1, color="0.4", linewidth=1)
    contraction.set(title="ratio of successive changes", xlabel="steps / N", ylim=(0, 1.6))
    residual.set(title="relative change of the state", xlabel="steps / N", yscale="log")
    for axis in (contraction, residual):
        axis.axvline(1, color="0.6", linewidth=1, zorder=0)
    legend_below(figure, residual)
    return Drawing(figure, ["quantity", "run", "t", "value"], rows)
