"""Why some rules keep their quality: a page of pictures for BPTT, C-RBP and the random starts side by side.

N: steps trained with.
"""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from crbp_d2.data import generate_pathfinder
from crbp_d2.data.pathfinder.dataset import SPLIT_SEEDS
from crbp_d2.utils.files import write_text

from .comparisons import LONGER
from .dynamics import describe
from .figure_style import Drawing, legend_below, line_style, name_of, panels
from .records import Record, Study
from .state_figures import draw_map
from .training_figures import SMALLEST
from .unrolling import BATCH, f1_of, load_model, overlay, probabilities

RULES = ("hgru_bptt", "hgru_crbp", "hgru_progressive", "hgru_progressive_far")
# Steps of the trace over one long contour.
TRACE = (1, 3, 6, 12, 24, 48, 96)


def analysed(study: Study, earlier: Study) -> list[Record]:
    """The first seed of each of RULES; of one without a record that of `earlier`."""
    return [record for run in RULES if (record := study.first(run) or earlier.first(run))]


def settling(records: Sequence[Record]) -> Drawing | None:
    """Spectral radius where the run ends, and the residual against t."""
    records = [record for record in records if "residual" in record.stability]
    if not records:
        return None
    figure, ((radius, residual),) = panels(1, 2)
    rows = []
    for place, record in enumerate(records):
        style = line_style(record.run)
        radii = np.atleast_1d(record.stability.get("spectral_radius", np.empty(0)))
        radius.plot([place] * len(radii), radii, **(style | {"linestyle": ""}))
        rows += [[record.run, "spectral radius", "", float(value)] for value in radii]
        values = record.stability["residual"]
        t = np.arange(1, len(values) + 1)
        residual.plot(t, np.maximum(values, SMALLEST), **(style | {"markevery": [record.steps - 1]}))
        rows += [[record.run, "residual", int(k), float(value)] for k, value in zip(t, values, strict=True)]
    radius.axhline(1, color="0.4", linewidth=1)
    radius.set_xticks(range(len(records)), [name_of(r.run) for r in records], rotation=30, ha="right", fontsize=8)
    radius.set(title="spectral radius at 4 N", yscale="log")
    radius.yaxis.set_major_formatter("{x:g}")
    radius.yaxis.set_minor_formatter("{x:g}")
    residual.set(title="change of the state in step t", xlabel="t", xscale="log", yscale="log")
    residual.xaxis.set_major_formatter("{x:g}")
    legend_below(figure, residual)
    return Drawing(figure, ["run", "quantity", "t", "value"], rows)


def states(records: Sequence[Record]) -> Drawing | None:
    """The states in the plane of most variance, a panel a rule."""
    records = [record for record in records if "projection" in record.state_space]
    if not records:
        return None
    figure, axes = panels(1, len(records))
    for axis, record in zip(axes[0], records, strict=True):
        draw_map(axis, record)
    legend_below(figure, axes[0, 0])
    paths = [(record.run, record.state_space["projection"][0]) for record in records]
    rows = [[run, t, float(x), float(y)] for run, path in paths for t, (x, y) in enumerate(path, start=1)]
    return Drawing(figure, ["run", "t", "component 1", "component 2"], rows)


def trace(records: Sequence[Record], root: Path) -> Drawing | None:
    """The prediction on one long contour after each of TRACE steps, a row a rule.

    Args:
        root: that configs and checkpoints are found from.
    """
    records = [record for record in records if record.checkpoint and (root / record.checkpoint).exists()]
    if not records:
        return None
    images, targets = generate_pathfinder(LONGER[-1], BATCH, (0, SPLIT_SEEDS["val"]))
    figure, axes = panels(len(records), len(TRACE) + 1)
    figure.set_size_inches(1.5 * (len(TRACE) + 1), 1.75 * len(records))
    rows = []
    for line, record in zip(axes, records, strict=True):
        line[0].imshow(np.where(targets[0] == 1, 255, images[0] // 3), cmap="gray", vmin=0, vmax=255)
        line[0].set_ylabel(name_of(record.run), fontsize=9)
        found = probabilities(load_model(record, root), images, TRACE)
        for axis, t, probability in zip(line[1:], TRACE, found, strict=True):
            score = f1_of(probability > 0.5, targets[0])
            axis.imshow(overlay(images[0], probability))
            axis.set_xlabel(f"F1 {score:.2f}", fontsize=9)
            rows.append([record.run, record.steps, t, score])
    for axis, title in zip(axes[0], ("target", *(f"t = {t}" for t in TRACE)), strict=True):
        axis.set_title(title, fontsize=9)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.grid(False)
    return Drawing(figure, ["run", "N", "t", "F1"], rows)


def write_analysis(study: Study, earlier: Study, figures: str, root: Path) -> None:
    """Write docs/ANALYSIS.md and its figures.

    Args:
        figures: their folder, relative to `root`.
    """
    records = analysed(study, earlier)
    drawings = {
        "settling": settling(records),
        "states_side_by_side": states(records),
        "trace": trace(records, root),
    }
    for stem, drawing in drawings.items():
        if drawing:
            drawing.save(root / figures, stem)
    written = [stem for stem, drawing in drawings.items() if drawing]
    write_text(root / "docs/ANALYSIS.md", analysis_page(study, earlier, written, figures))


CAPTIONS = {
    "settling": (
        "Do the states come to rest?",
        "Left: spectral radius of the Jacobian at the state after 4 N steps, a point a stimulus. Right: relative\n"
        "change of the state in step t, median over stimuli; marked: N.",
    ),
    "states_side_by_side": (
        "Where are they?",
        "States averaged over space in the plane of most variance up to N. Contours hold 50% and 90% of the states up\n"
        "to N (solid) and from N to 4 N (dashed); the line follows one stimulus.",
    ),
    "trace": (
        "One long contour",
        f"The first validation stimulus of {LONGER[-1]}, twice as long as in training, and the probability of the\n"
        "target after t steps.",
    ),
}


def analysis_page(study: Study, earlier: Study, written: Sequence[str], figures: str) -> str:
    """The whole page.

    Args:
        written: stems of the figures there are.
        figures: their folder, relative to the repository.
    """
    records = analysed(study, earlier)
    parts = [
        "# Why some rules keep their quality",
        "Written by `python -m tools.pathfinder_study` from the records of [RESULTS](RESULTS.md); the first seed of "
        "each rule.",
    ]
    late = [name_of(r.run) for r in records if not study.first(r.run)]
    if late:
        parts.append(f"After 1,000 iterations alone, as its run at convergence is to come: {', '.join(late)}.")
    for stem, (title, caption) in CAPTIONS.items():
        if stem in written:
            parts += [f"## {title}", f"![{title}](../{figures}/{stem}.png)", caption]
    words = [(name_of(r.run), describe(study if study.first(r.run) else earlier, r.run)) for r in records]
    if any(text for _, text in words):
        parts += ["## In words", *(_short_lines(f"**{name}**: {text}") for name, text in words)]
    return "\n\n".join(parts) + "\n"


def _short_lines(text: str) -> str:
    return "\n".join(textwrap.wrap(text, 116))
