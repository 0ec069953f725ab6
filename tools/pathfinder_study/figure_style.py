"""Style of the study's figures and tables: distinct in black and white and for colour-blind readers."""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy import ndarray

from crbp_d2.utils.files import write_figure, write_text

from .records import Study

T = TypeVar("T")
# Name in figures and tables, colour (Okabe and Ito's palette), line style, marker.
Style = tuple[str, str, str | tuple, str]
STYLES: dict[str, Style] = {
    "hgru_progressive": ("progressive", "#0072B2", "-", "*"),
    "hgru_progressive_far": ("progressive_far", "#5E3C99", (0, (8, 1)), "X"),
    "hgru_progressive_mixed": ("progressive_mixed", "#E7298A", (0, (3, 1)), "P"),
    "hgru_progressive_far_8": ("progressive_far, 8 recorded steps", "#1B7837", (0, (8, 1)), "<"),
    "hgru_progressive_far_10": ("progressive_far, 10 recorded steps", "#A6761D", (0, (8, 1)), ">"),
    "hgru_progressive_far_long": ("progressive_far, 6,000 iterations", "#666666", (0, (8, 1)), "8"),
    "hgru_bptt": ("BPTT", "#D55E00", "--", "s"),
    "hgru_cbptt": ("C-BPTT", "#009E73", (0, (5, 1)), "^"),
    "hgru_tbptt": ("truncated BPTT", "#E69F00", ":", "v"),
    "hgru_bptt_every_step": ("BPTT, every step", "#CC79A7", "-.", "D"),
    "hgru_crbp": ("C-RBP", "#000000", "-", "o"),
    "hgru_crbp_contracting": ("C-RBP, contracting", "#777777", (0, (6, 2)), "h"),
    "hgru_crbp_random": ("C-RBP, random steps", "#B2A000", (0, (4, 1, 1, 1)), "d"),
    "hgru_rbp": ("RBP", "#56B4E9", (0, (3, 1, 1, 1, 1, 1)), "x"),
    "hgru_deq": ("DEQ", "#882255", (0, (1, 1)), "+"),
    "hgru_progressive_time": ("progressive, BPTT's time", "#0072B2", ":", "*"),
    "hgru_progressive_far_time": ("progressive_far, BPTT's time", "#5E3C99", ":", "X"),
    "hgru_progressive_far_half": ("progressive_far, half of the iterations", "#5E3C99", (0, (1, 3)), "X"),
    "convlstm_bptt": ("ConvLSTM, BPTT", "#D55E00", "--", "s"),
    "convlstm_crbp": ("ConvLSTM, C-RBP", "#000000", "-", "o"),
    "convlstm_progressive": ("ConvLSTM, progressive", "#0072B2", "-", "*"),
    "ff6": ("feedforward, 6 layers", "#0072B2", ":", "p"),
    "ff2": ("feedforward, 2 layers", "#009E73", "-.", "P"),
    "pf9s_progressive": ("progressive, trained on PF9s", "#0072B2", "-", "*"),
    "pf9s_progressive_far": ("progressive_far, trained on PF9s", "#5E3C99", (0, (8, 1)), "X"),
    "pf9s_bptt": ("BPTT, trained on PF9s", "#D55E00", "--", "s"),
    "pf9s_crbp_contracting": ("C-RBP, contracting, trained on PF9s", "#777777", (0, (6, 2)), "h"),
}
HGRU = tuple(run for run in STYLES if run.startswith("hgru_"))
MAIN = ("hgru_progressive", "hgru_progressive_far", "hgru_bptt", "hgru_cbptt", "hgru_crbp", "hgru_crbp_contracting",
        "hgru_rbp")  # fmt: skip
RANDOM_STARTS = tuple(
    run for run in STYLES if run.startswith("hgru_progressive") and not run.endswith(("time", "half"))
)
UNROLLED = ("hgru_bptt", "hgru_cbptt", "hgru_tbptt", "hgru_bptt_every_step")
FIXED_POINT = ("hgru_crbp", "hgru_crbp_contracting", "hgru_crbp_random", "hgru_rbp", "hgru_deq")
CONVLSTM = ("convlstm_bptt", "convlstm_crbp", "convlstm_progressive")
FEEDFORWARD = ("ff6", "ff2")
ON_LONGER = tuple(run for run in STYLES if run.startswith("pf9s_"))
PANEL = 3.4  # inches


@dataclass(frozen=True)
class Drawing:
    """A figure and the numbers in it."""

    figure: Figure
    headers: Sequence[str]
    rows: Sequence[Sequence[object]]

    def numbers(self) -> str:
        """As CSV."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.headers)
        writer.writerows([[_cell(value) for value in row] for row in self.rows])
        return text.getvalue()

    def save(self, folder: Path, stem: str) -> None:
        """As `stem`.png and .csv."""
        write_text(folder / f"{stem}.csv", self.numbers())
        self.save_picture(folder / f"{stem}.png")

    def save_picture(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_figure(path, self.figure)


def _cell(value: object) -> object:
    if isinstance(value, float | np.floating):
        return f"{value:.6g}" if np.isfinite(value) else ""
    return value


def compact_table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table without padding, as one long cell would widen every line."""
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in lines)


def name_of(run: str) -> str:
    return STYLES[run][0] if run in STYLES else run


def line_style(run: str) -> dict:
    """Keywords of `Axes.plot` for a run; the caller places the markers."""
    return curve_style(STYLES[run])


def curve_style(style: Style) -> dict:
    name, colour, line, marker = style
    return {"label": name, "color": colour, "linestyle": line, "marker": marker, "markersize": 5, "linewidth": 1.4}


def panels(rows: int, columns: int, **kwargs) -> tuple[Figure, ndarray]:
    """A figure and its rows x columns axes."""
    figure = Figure(figsize=(PANEL * columns, 0.9 * PANEL * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **kwargs)
    for axis in axes.flat:
        axis.grid(color="0.92")
        axis.set_axisbelow(True)
    return figure, axes


def around(scores: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Limits of an axis for scores between 0 and 1: whole tenths, with a margin; nan is ignored."""
    found = np.array(scores)[np.isfinite(scores)]
    low, high = (found.min(), found.max()) if found.size else (0, 1)
    return max(np.floor(low * 10 - 0.2) / 10, 0), min(np.ceil(high * 10 + 0.2) / 10, 1)


def legend_below(figure: Figure, *axes: Axes) -> None:
    """One legend of the curves in `axes` for all panels, as wide as the figure."""
    entries = [axis.get_legend_handles_labels() for axis in axes]
    handles, labels = (sum((entry[k] for entry in entries), []) for k in (0, 1))
    columns = max(int(figure.get_figwidth() // 2.2), 1)
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)


def over_seeds(records: Sequence[T], curve: Callable[[T], ndarray]) -> tuple[ndarray, ndarray, ndarray]:
    """Mean, minimum and maximum over the seeds at each point of `curve(record)`."""
    values = np.stack([curve(record) for record in records])
    return values.mean(axis=0), values.min(axis=0), values.max(axis=0)


def draw_band(axes: Axes, x: ndarray, values: tuple[ndarray, ndarray, ndarray], style: Style, **kwargs) -> None:
    """Draw the mean as a line and the seeds' range as a band."""
    mean, low, high = values
    axes.plot(x, mean, **(curve_style(style) | {"markevery": max(len(x) // 8, 1)} | kwargs))
    if (low < high).any():
        axes.fill_between(x, low, high, color=style[1], alpha=0.15, linewidth=0)


def present(study: Study, runs: Sequence[str]) -> list[str]:
    """The runs that have records."""
    return [run for run in runs if study[run]]
