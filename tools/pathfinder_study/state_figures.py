"""Figures of state space: states up to N steps and beyond, and tests of whether they stay."""

import math

import numpy as np
from matplotlib.axes import Axes

from .figure_style import CONVLSTM, HGRU, STYLES, Drawing, draw_band, legend_below, name_of, panels, present
from .records import Record, Study
from .state_space import state_space

UP_TO, BEYOND = "#0072B2", "#D55E00"


def state_space_maps(study: Study) -> Drawing | None:
    """The states up to N and beyond, and the path of one stimulus; seed 0."""
    runs = [run for run in present(study, (*HGRU, *CONVLSTM)) if "projection" in study.first(run).state_space]
    if not runs:
        return None
    columns = 2 if len(runs) < 3 else 3
    figure, axes = panels(math.ceil(len(runs) / columns), columns)
    rows = []
    for axis, run in zip(axes.flat, runs, strict=False):
        record = study.first(run)
        draw_map(axis, record)
        path = record.state_space["projection"][0]
        rows += [[run, t, float(x), float(y)] for t, (x, y) in enumerate(path, start=1)]
    for axis in axes.flat[len(runs) :]:
        axis.axis("off")
    legend_below(figure, axes[0, 0])
    return Drawing(figure, ["run", "t", "component 1", "component 2"], rows)


def draw_map(axis: Axes, record: Record) -> None:
    """The states of one run up to N and beyond, and the path of one stimulus."""
    projection, trained = record.state_space["projection"], record.steps
    for part, colour, name in (
        (projection[:, trained:], BEYOND, "states beyond N"),
        (projection[:, :trained], UP_TO, "states up to N"),
    ):
        points = part.reshape(-1, 2)
        axis.plot(*points.T, color=colour, linestyle="", marker=".", markersize=2, alpha=0.25, rasterized=True)
        axis.plot([], [], color=colour, linestyle="", marker=".", label=name)
    path = projection[0]
    axis.plot(*path.T, color="black", linewidth=0.9, label="one stimulus")
    for t, marker, face in ((1, "v", "black"), (trained, "o", "white"), (len(path), "s", "white")):
        name = {1: "t = 1", trained: "t = N"}.get(t, "t = 4 N")
        style = {"color": "black", "markerfacecolor": face, "markersize": 7, "linestyle": ""}
        axis.plot(*path[t - 1], marker=marker, label=name, zorder=5, **style)
    explained = record.state_space.get("explained", np.full(2, np.nan))
    axis.set_title(name_of(record.run))
    axis.set_xlabel(f"component 1 ({explained[0]:.0%} of the variance)", fontsize=8)
    axis.set_ylabel(f"component 2 ({explained[1]:.0%})", fontsize=8)
    axis.tick_params(labelsize=8)


def state_space_tests(study: Study) -> Drawing | None:
    """Distribution functions of the distances from the centroid of the states at N (seed 0), and of the drift."""
    spaces = {
        run: found
        for run in present(study, (*HGRU, *CONVLSTM))
        if (found := [(r.seed, space) for r in study[run] if (space := state_space(r))])
    }
    if not spaces:
        return None
    columns = min(len(spaces) + 1, 4)
    figure, axes = panels(math.ceil((len(spaces) + 1) / columns), columns)
    for axis, (run, found) in zip(axes.flat, spaces.items(), strict=False):
        space = found[0][1]
        for values, colour, style, name in (
            (space.at_trained, "black", "solid", "states at N"),
            (space.at_far, "0.5", "dashed", "states at 4 N"),
        ):
            axis.ecdf(values, color=colour, linestyle=style, linewidth=1.6, label=name)
        test = space.region
        axis.set_title(f"{name_of(run)}\nD {test.distance:.2f}, p {test.p:.1g}, delta {test.delta:.2f}", fontsize=9)
        axis.set_xlabel("distance from the centroid at N", fontsize=8)
    drift = axes.flat[len(spaces)]
    for run, found in spaces.items():
        if run in HGRU:
            values = np.sort(found[0][1].drift)
            fraction = np.arange(1, len(values) + 1) / len(values)
            draw_band(drift, values, (fraction,) * 3, STYLES[run], markersize=4)
    drift.set_title("hGRU: from N to 4 N", fontsize=9)
    drift.set_xlabel("distance over the spread up to N", fontsize=8)
    for axis in axes.flat[len(spaces) + 1 :]:
        axis.axis("off")
    for axis in axes[:, 0]:
        axis.set_ylabel("fraction of the stimuli")
    legend_below(figure, axes[0, 0], drift)
    rows = [
        [
            run,
            seed,
            space.region.distance,
            space.region.p,
            space.region.delta,
            *(float(np.median(values)) for values in (space.at_trained, space.at_far, space.drift)),
        ]
        for run, found in spaces.items()
        for seed, space in found
    ]
    headers = ["run", "seed", "D", "p", "delta", "median distance at N", "median distance at 4 N", "median drift"]
    return Drawing(figure, headers, rows)
