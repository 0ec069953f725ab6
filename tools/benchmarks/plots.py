"""Figures of a page of measurements: one style, told apart without colours."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter

from crbp_d2.utils.files import write_figure

# Line style, marker and grey level of one curve after the other.
STYLES = (
    ("-", "o", "0.0"),
    ("--", "^", "0.0"),
    (":", "s", "0.0"),
    ("-.", "x", "0.4"),
    ("-", "D", "0.6"),
    ("--", "v", "0.6"),
)
FOLDER = Path("benchmarks")

Curve = tuple[Sequence[float], Sequence[float]]


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    x, y: what stands on the axes, with units.
    curves: label -> points; at most as many as there are STYLES.
    log: axes with a logarithmic scale: "", "x", "y" or "xy".
    ticks: where the x axis has its numbers; empty: left to matplotlib.
    """

    title: str
    x: str
    y: str
    curves: Mapping[str, Curve]
    log: str = ""
    ticks: Sequence[float] = ()


def picture(page: Path, name: str, alt: str, panels: Sequence[Panel]) -> str:
    """Draw panels side by side, three in a row, into benchmarks/<name>.png beside a page.

    Returns:
        The Markdown that shows the picture on the page.
    """
    columns = min(len(panels), 3)
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.4 * rows), layout="constrained")
    for place, panel in enumerate(panels, start=1):
        _draw(figure.add_subplot(rows, columns, place), panel)
    path = page.parent / FOLDER / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_figure(path, figure)
    return f"![{alt}]({(FOLDER / path.name).as_posix()})"


def _draw(axes, panel: Panel) -> None:
    axes.set(title=panel.title, xlabel=panel.x, ylabel=panel.y)
    for (label, (x, y)), (line, marker, grey) in zip(panel.curves.items(), STYLES[: len(panel.curves)], strict=True):
        axes.plot(x, y, line, marker=marker, markersize=5, markerfacecolor="none", color=grey, label=label)
    for axis in panel.log:
        getattr(axes, f"set_{axis}scale")("log")
    if panel.ticks:
        axes.set_xticks(panel.ticks)
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_formatter(NullFormatter())
    if "y" not in panel.log and axes.get_ylim()[0] > 0:
        axes.set_ylim(bottom=0)
    axes.grid(color="0.9")
    if len(panel.curves) > 1:
        axes.legend(fontsize="small")
