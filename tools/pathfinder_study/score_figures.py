"""Figures of F1: over steps, over contours, over parameters, over the time of training. N: steps trained with."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from .comparisons import LONGER
from .dynamics import mean, mean_f1
from .figure_style import (
    CONVLSTM,
    FEEDFORWARD,
    FIXED_POINT,
    HGRU,
    MAIN,
    ON_LONGER,
    PANEL,
    STYLES,
    UNROLLED,
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

BLACK_ON = 0.55  # fraction of the colour map from which it is bright enough for black digits
MULTIPLES = (1, 4, 16)  # of N


def quality_per_step(study: Study) -> Drawing | None:
    """hGRU: F1 over t / N."""
    return _per_step(study, MAIN)


def quality_per_step_variants(study: Study) -> Drawing | None:
    """The rules that unroll."""
    return _per_step(study, UNROLLED)


def quality_per_step_fixed_point(study: Study) -> Drawing | None:
    """The rules of a fixed point."""
    return _per_step(study, FIXED_POINT)


def quality_per_step_convlstm(study: Study) -> Drawing | None:
    """ConvLSTM, and the feedforward controls as levels."""
    return _per_step(study, (*CONVLSTM, *FEEDFORWARD))


def trained_on_longer(study: Study) -> Drawing | None:
    """Rules that were trained on longer contours."""
    return _per_step(study, ON_LONGER)


def longer_contours(study: Study) -> Drawing | None:
    """F1 on contours longer than in training, over t."""
    return _per_step(study, MAIN, [spec for spec in study.specs if spec in LONGER], relative=False)


def _per_step(
    study: Study, runs: Sequence[str], specs: Sequence[str] | None = None, relative: bool = True
) -> Drawing | None:
    """A panel a spec, by default of all; relative: over t / N rather than t."""
    runs, specs = present(study, runs), study.specs if specs is None else specs
    if not runs or not specs:
        return None
    figure, axes = panels(1, len(specs), sharey=True)
    rows = []
    for axis, spec in zip(axes[0], specs, strict=True):
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
            marked = [int(k) for k in np.flatnonzero(np.isin(steps, [m * trained for m in MULTIPLES]))]
            x = steps / trained if relative else steps
            draw_over_seeds(axis, x, values, run, markevery=marked, markersize=6)
            rows += [
                [spec, run, int(t), t / trained, *(float(v[k]) for v in values), len(records)]
                for k, t in enumerate(steps)
            ]
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter("{x:g}")
        axis.set(title=spec, xlabel="steps / trained steps N" if relative else "steps")
        axis.set_xlim(left=0.5 if relative else 4)
    trained = [row[4] for row in rows if row[3] == "" or row[3] >= 1]
    axes[0, 0].set(ylabel="F1", ylim=around(trained))
    legend_below(figure, axes[0, 0])
    return Drawing(figure, ["spec", "run", "t", "t / N", "F1", "least", "greatest", "seeds"], rows)


def scores(study: Study) -> Drawing | None:
    """Rules x contours at N, 4 N and 16 N, "-" where not run."""
    if not study.specs:
        return None
    runs = (*HGRU, *CONVLSTM, *FEEDFORWARD)
    figure = Figure(figsize=(PANEL * 3.4, 0.38 * len(runs) + 1.2), layout="constrained")
    axes = figure.subplots(1, len(MULTIPLES), sharey=True)
    tables = [np.array([[mean_f1(study, run, spec, m) for spec in study.specs] for run in runs]) for m in MULTIPLES]
    low, high = around(np.concatenate(tables).ravel())
    for axis, table, multiple in zip(axes, tables, MULTIPLES, strict=True):
        image = axis.imshow(np.ma.masked_invalid(table), cmap="cividis", vmin=low, vmax=high, aspect="auto")
        for (row, column), value in np.ndenumerate(table):
            known = np.isfinite(value)
            colour = "black" if not known or value > low + BLACK_ON * (high - low) else "white"
            axis.text(column, row, f"{value:.3f}" if known else "-", ha="center", va="center", color=colour)
        axis.set_xticks(range(len(study.specs)), study.specs)
        axis.set_yticks(range(len(runs)), [name_of(run) for run in runs])
        axis.set_title(f"after {multiple} N steps" if multiple > 1 else "after N steps")
    figure.colorbar(image, ax=axes, label="F1")
    rows = [
        [run, spec, *(float(table[i, j]) for table in tables)]
        for i, run in enumerate(runs)
        for j, spec in enumerate(study.specs)
    ]
    return Drawing(figure, ["run", "spec", "F1 at N", "F1 at 4 N", "F1 at 16 N"], rows)


def parameters(study: Study) -> Drawing | None:
    """F1 at N against the number of parameters."""
    runs = present(study, ("hgru_progressive", "hgru_bptt", "hgru_crbp", *CONVLSTM, *FEEDFORWARD))
    if not runs:
        return None
    figure = Figure(figsize=(PANEL * 1.8, PANEL * 1.3), layout="constrained")
    axis = figure.subplots()
    axis.grid(color="0.92")
    points = {run: (study.first(run).parameters, mean_f1(study, run)) for run in runs}
    for run in runs:
        face = "white" if run in CONVLSTM else STYLES[run][1]
        name = name_of(run) if run in (*CONVLSTM, *FEEDFORWARD) else f"hGRU, {name_of(run)}"
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
    return Drawing(figure, ["run", "parameters", "F1 at N"], [[run, *points[run]] for run in points])


def budget(study: Study) -> Drawing | None:
    """F1 at N, 4 N and 16 N beside the time of training."""
    runs = [run for run in present(study, HGRU) if study.first(run).quality]
    if not runs:
        return None
    spec = study.specs[0]
    figure = Figure(figsize=(PANEL * 3, 0.36 * len(runs) + 1.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(2, 1))
    places = np.arange(len(runs))
    values = np.array([[mean_f1(study, run, spec, multiple) for multiple in MULTIPLES] for run in runs])
    left.hlines(places, np.nanmin(values, axis=1), np.nanmax(values, axis=1), color="0.7", zorder=1)
    for column, (name, marker, face) in enumerate((("N", "o", "black"), ("4 N", "s", "0.7"), ("16 N", "D", "white"))):
        style = {"label": name, "marker": marker, "markerfacecolor": face, "color": "black", "linestyle": ""}
        left.plot(values[:, column], places, **style)
    seconds = [mean([record.seconds.get("training", np.nan) for record in study[run]]) for run in runs]
    right.barh(places, seconds, color="0.75", edgecolor="black")
    left.set_yticks(places, [name_of(run) for run in runs])
    left.invert_yaxis()
    left.set_xlabel(f"F1 on {spec}")
    right.set_xlabel("training, processor seconds of one thread")
    for axis in (left, right):
        axis.grid(color="0.92", axis="x")
        axis.set_axisbelow(True)
    legend_below(figure, left)
    rows = [[run, *map(float, found), used] for run, found, used in zip(runs, values, seconds, strict=True)]
    return Drawing(figure, ["run", "F1 at N", "F1 at 4 N", "F1 at 16 N", "training s"], rows)
