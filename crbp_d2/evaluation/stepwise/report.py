"""Quality per step as CSV and as a figure.

Columns are "t" and the figures at each t, in percent, as arrays of equal length.
"""

import csv
import io
from collections.abc import Mapping

import numpy as np

from crbp_d2.files import write_figure

# heading, column, line style, marker: told apart without colours
CURVES = (
    ("PQ", "PQ", "-", "o"),
    ("PQ things", "PQ_th", "--", "^"),
    ("PQ stuff", "PQ_st", ":", "s"),
    ("mask AP", "AP", "-.", "x"),
)
HEADINGS = {"t": "t", "PQ": "PQ", "SQ": "SQ", "RQ": "RQ", "PQ_th": "PQ_th", "PQ_st": "PQ_st", "AP": "mask AP"}


def steps_csv(columns: Mapping[str, np.ndarray]) -> str:
    """One line for each t; empty where a figure is not a number."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADINGS.values())
    for k, t in enumerate(columns["t"]):
        figures = [columns[name][k] for name in HEADINGS if name != "t"]
        writer.writerow([t, *("" if np.isnan(figure) else f"{figure:.4f}" for figure in figures)])
    return text.getvalue()


def draw_steps(columns: Mapping[str, np.ndarray], path: str, marked: int) -> None:
    """Draw the curves of CURVES over t, with a vertical line at the step count `marked`, into a PNG."""
    # Where something is drawn, as most starts draw nothing.
    from matplotlib.figure import Figure

    order = np.argsort(columns["t"])
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="steps", ylabel="%")
    for label, name, style, marker in CURVES:
        axes.plot(
            columns["t"][order], columns[name][order], style, marker=marker, markersize=4, color="black", label=label
        )
    axes.axvline(marked, color="0.6", linewidth=6, alpha=0.5, zorder=0, label=f"{marked} steps, as evaluated")
    axes.grid(color="0.9")
    axes.legend()
    write_figure(path, figure, dpi=150)
