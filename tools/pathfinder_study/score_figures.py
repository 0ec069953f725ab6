"""Figures of F1: over steps, over contours, over parameters, over the ablation. N: steps trained with."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from .ablation import ablation_rows
from .dynamics import mean_f1
from .figure_style import (
    CONVLSTM,
    FEEDFORWARD,
    HGRU,
    KERNELS,
    PANEL,
    STYLES,
    Drawing,
    around,
    draw_over_seeds,
    legend_below,
    line_style,
    name_of,
    over_seeds,
    panels,
    present,
)
from .records import Study

BLACK_ON = 0.55  # share of the colour map from which it is bright enough for black digits


def quality_per_step(study: Study) -> Drawing | None:
    """hGRU: F1 over t / N."""
    return _per_step(study, HGRU)


def quality_per_step_convlstm(study: Study) -> Drawing | None:
    """ConvLSTM, and the feedforward controls as levels."""
    return _per_step(study, (*CONVLSTM, *FEEDFORWARD))


def _per_step(study: Study, runs: Sequence[str]) -> Drawing | None:
    runs = present(study, runs)
    if not runs:
        return None
    figure, axes = panels(1, len(study.specs), sharey=True)
    rows = []
    for axis, spec in zip(axes[0], study.specs, strict=True):
        for run in runs:
            records = [r for r in study[run] if spec in r.quality]
            if not records:
                continue
            steps, trained = records[0].quality[spec].steps, records[0].steps
            values = over_seeds(records, lambda r, spec=spec: r.quality[spec].f1)
            if trained is None:
                style = line_style(run) | {"marker": "None"}
                axis.axhline(values[0][0], **style)
                rows.append([spec, run, 0, "", *(float(v[0]) for v in values), len(records)])
                continue
            # Markers at N and at 4 N only.
            marked = [int(k) for k in np.flatnonzero(np.isin(steps, (trained, 4 * trained)))]
            draw_over_seeds(axis, steps / trained, values, run, markevery=marked, markersize=7)
            rows += [
                [spec, run, int(t), t / trained, *(float(v[k]) for v in values), len(records)]
                for k, t in enumerate(steps)
            ]
        for at, text in ((1, "N"), (4, "4 N")):
            axis.axvline(at, color="0.6", linewidth=1, zorder=0)
            axis.annotate(text, (at, 0.01), xycoords=("data", "axes fraction"), ha="right", color="0.35")
        axis.set(title=spec, xlabel="steps / trained steps N")
    trained = [row[4] for row in rows if row[3] == "" or row[3] >= 1]
    axes[0, 0].set(ylabel="F1", ylim=around(trained))
    legend_below(figure, axes[0, 0])
    return Drawing(figure, ["spec", "run", "t", "t / N", "F1", "least", "greatest", "seeds"], rows)


def generalization(study: Study) -> Drawing | None:
    """Rules x contours at N and at 4 N, "-" where not run."""
    if not study.specs:
        return None
    runs = (*HGRU, *CONVLSTM, *FEEDFORWARD)
    figure = Figure(figsize=(PANEL * 2.6, 0.42 * len(runs) + 1.2), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    tables = [np.array([[mean_f1(study, run, spec, m) for spec in study.specs] for run in runs]) for m in (1, 4)]
    low, high = around(np.concatenate(tables).ravel())
    for axis, table, title in zip(axes, tables, ("after N steps", "after 4 N steps"), strict=True):
        image = axis.imshow(np.ma.masked_invalid(table), cmap="cividis", vmin=low, vmax=high, aspect="auto")
        for (row, column), value in np.ndenumerate(table):
            known = np.isfinite(value)
            colour = "black" if not known or value > low + BLACK_ON * (high - low) else "white"
            axis.text(column, row, f"{value:.3f}" if known else "-", ha="center", va="center", color=colour)
        axis.set_xticks(range(len(study.specs)), study.specs)
        axis.set_yticks(range(len(runs)), [name_of(run) for run in runs])
        axis.set_title(title)
    figure.colorbar(image, ax=axes, label="F1")
    rows = [
        [run, spec, float(tables[0][i, j]), float(tables[1][i, j])]
        for i, run in enumerate(runs)
        for j, spec in enumerate(study.specs)
    ]
    return Drawing(figure, ["run", "spec", "F1 at N", "F1 at 4 N"], rows)


def long_runs(study: Study) -> Drawing | None:
    """F1 up to 16 N, on fewer stimuli."""
    runs = [run for run in present(study, (*HGRU, *CONVLSTM)) if study.first(run).long]
    if not runs:
        return None
    specs = [spec for spec in study.specs if any(spec in study.first(run).long for run in runs)]
    figure, axes = panels(1, len(specs), sharey=True)
    rows = []
    for axis, spec in zip(axes[0], specs, strict=True):
        for run in runs:
            records = [r for r in study[run] if spec in r.long]
            if not records:
                continue
            multiples = records[0].long[spec].steps / records[0].steps
            values = over_seeds(records, lambda r, spec=spec: r.long[spec].f1)
            style = {} if run in HGRU else {"color": "0.55", "markerfacecolor": "white"}
            draw_over_seeds(axis, multiples, values, run, markevery=1, **style)
            rows += [[spec, run, int(m), *(float(v[k]) for v in values)] for k, m in enumerate(multiples)]
        axis.set_xscale("log", base=2)
        axis.set_xticks(multiples, [f"{m:g} N" for m in multiples])
        axis.set(title=spec, xlabel="steps")
    axes[0, 0].set(ylabel="F1", ylim=around([value for row in rows for value in row[3:]]))
    legend_below(figure, axes[0, 0])
    return Drawing(figure, ["spec", "run", "multiple of N", "F1", "least", "greatest"], rows)


def parameters(study: Study) -> Drawing | None:
    """F1 at N against the number of parameters."""
    kernels, others = present(study, KERNELS), present(study, ("hgru_bptt", *CONVLSTM, *FEEDFORWARD))
    if not kernels and not others:
        return None
    figure = Figure(figsize=(PANEL * 1.8, PANEL * 1.3), layout="constrained")
    axis = figure.subplots()
    axis.grid(color="0.92")
    points = {run: (study.first(run).parameters, mean_f1(study, run)) for run in (*kernels, *others)}
    if kernels:
        axis.plot(*np.array([points[run] for run in kernels]).T, **(line_style("hgru_crbp") | {"label": "hGRU, C-RBP"}))
    for run in kernels:
        extent = study.first(run).kernel_size
        axis.annotate(f"{extent}x{extent}", points[run], (7, -11), textcoords="offset points")
    for run in others:
        face = "white" if run in CONVLSTM else STYLES[run][1]
        name = "hGRU, BPTT" if run == "hgru_bptt" else name_of(run)
        axis.plot(*points[run], **(line_style(run) | {"linestyle": "", "label": name, "markerfacecolor": face}))
    values = np.array(list(points.values()))
    axis.set(xscale="log", xlabel="parameters", ylabel=f"F1 on {study.specs[0]} at N")
    axis.set_xlim(values[:, 0].min() / 1.3, values[:, 0].max() * 1.3)
    axis.set_ylim(max(values[:, 1].min() - 0.1, 0), min(values[:, 1].max() + 0.1, 1))
    low, high = axis.get_xlim()
    leading = (1, 2, 5) if high / low > 3 else range(1, 10)
    axis.set_xticks([t for k in range(2, 7) for m in leading if low < (t := m * 10**k) < high])
    axis.xaxis.set_major_formatter("{x:,.0f}")
    axis.minorticks_off()
    axis.legend(frameon=False)
    rows = [[run, study.first(run).kernel_size, *points[run]] for run in points]
    return Drawing(figure, ["run", "kernel", "parameters", "F1 at N"], rows)


def recipes(study: Study) -> Drawing | None:
    """F1 and training time of every row of the ablation."""
    rows = ablation_rows(study)
    if not rows:
        return None
    spec = study.specs[0]
    figure = Figure(figsize=(PANEL * 3, 0.36 * len(rows) + 1.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(2, 1))
    places = np.arange(len(rows))
    values = np.array([[row.long_f1(spec, multiple) for multiple in (1, 4, 8)] for row in rows])
    left.hlines(places, np.nanmin(values, axis=1), np.nanmax(values, axis=1), color="0.7", zorder=1)
    for column, (name, marker, face) in enumerate((("N", "o", "black"), ("4 N", "s", "0.7"), ("8 N", "D", "white"))):
        style = {"label": name, "marker": marker, "markerfacecolor": face, "color": "black", "linestyle": ""}
        left.plot(values[:, column], places, **style)
    seconds = [row.seconds("training") for row in rows]
    right.barh(places, seconds, color="0.75", edgecolor="black")
    left.set_yticks(places, [row.label for row in rows])
    left.invert_yaxis()
    left.set_xlabel(f"F1 on {spec}, {rows[0].first.long[spec].stimuli} stimuli")
    right.set_xlabel("training, s")
    for axis in (left, right):
        axis.grid(color="0.92", axis="x")
        axis.set_axisbelow(True)
    legend_below(figure, left)
    numbers = [
        [row.first.run, row.label, *map(float, found), used]
        for row, found, used in zip(rows, values, seconds, strict=True)
    ]
    return Drawing(figure, ["run", "label", "F1 at N", "F1 at 4 N", "F1 at 8 N", "training s"], numbers)
