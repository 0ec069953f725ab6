"""Figures of state space: where the states are up to N steps and beyond, and tests of whether they stay."""

import math

import numpy as np
from matplotlib.axes import Axes
from numpy import ndarray

from .distributions import density, level_of_share
from .figure_style import CONVLSTM, HGRU, Drawing, draw_over_seeds, legend_below, name_of, panels, present
from .records import Record, Study
from .state_space import state_space

GRID, POINTS = 60, 800  # of a density at most
SHARES = (0.5, 0.9)  # of the density's mass inside the contours
UP_TO, BEYOND = "#0072B2", "#D55E00"


def state_space_maps(study: Study) -> Drawing | None:
    """A panel a rule: contours of the density of the states up to N and beyond, and one stimulus's way; seed 0."""
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
    """Contours of the density of one run's states up to N and beyond, and one stimulus's way."""
    projection, trained = record.state_space["projection"], record.steps
    parts = [part.reshape(-1, 2) for part in (projection[:, :trained], projection[:, trained:])]
    parts = [part[np.isfinite(part).all(axis=1)] for part in parts]
    every = np.concatenate(parts)
    low, high = every.min(axis=0), every.max(axis=0)
    margin = 0.25 * (high - low) + 1e-9
    x, y = (np.linspace(a, b, GRID) for a, b in zip(low - margin, high + margin, strict=True))
    for part, colour, style, name in zip(
        parts, (UP_TO, BEYOND), ("solid", "dashed"), ("states up to N", "states beyond N"), strict=True
    ):
        _contours(axis, part, x, y, colour, style)
        axis.plot([], [], color=colour, linestyle=style, label=name)
    path = projection[0]
    axis.plot(*path.T, color="black", linewidth=0.9, label="one stimulus")
    for t, marker, face in ((1, "v", "black"), (trained, "o", "white"), (len(path), "s", "white")):
        name = {1: "t = 1", trained: "t = N"}.get(t, "t = 4 N")
        style = {"color": "black", "markerfacecolor": face, "markersize": 7, "linestyle": ""}
        axis.plot(*path[t - 1], marker=marker, label=name, zorder=5, **style)
    shares = record.state_space.get("explained", np.full(2, np.nan))
    axis.set_title(name_of(record.run))
    axis.set_xlabel(f"component 1 ({shares[0]:.0%} of the variance)", fontsize=8)
    axis.set_ylabel(f"component 2 ({shares[1]:.0%})", fontsize=8)
    axis.tick_params(labelsize=8)


def _contours(axis: Axes, points: ndarray, x: ndarray, y: ndarray, colour: str, style: str) -> None:
    if len(points) < 3:
        return
    # Drawn at random: every k-th of points in the order of time would leave out some steps.
    chosen = np.random.default_rng(0).permutation(len(points))[:POINTS]
    heights = density(points[chosen], x, y)
    levels = sorted({level_of_share(heights, share) for share in SHARES})
    if levels[0] < heights.max():
        axis.contour(x, y, heights, levels=levels, colors=colour, linestyles=style, linewidths=1.6)


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
            share = np.arange(1, len(values) + 1) / len(values)
            draw_over_seeds(drift, values, (share,) * 3, run, markersize=4)
    drift.set_title("hGRU: from N to 4 N", fontsize=9)
    drift.set_xlabel("distance over the spread up to N", fontsize=8)
    for axis in axes.flat[len(spaces) + 1 :]:
        axis.axis("off")
    for axis in axes[:, 0]:
        axis.set_ylabel("share of the stimuli")
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
